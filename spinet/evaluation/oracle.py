"""Where the points are lost: PQ with true parts in a network's output, and what is wrong with its masks."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from spinet.data import Sample
from spinet.data.label_space import IGNORE
from spinet.inference.candidates import find_peaks, masks_at, rank
from spinet.inference.mask_logits import MaskLogits, mask_cut
from spinet.inference.postprocess import merge_ranked
from spinet.model.filter_sampling import Locations
from spinet.model.spinet import Features, SPINet
from spinet.objective.targets import MASK_STRIDE, ImageTargets, TargetBuilder
from spinet.system import Model, NetworkOutput, Panoptic

Part = Literal["scores", "masks", "stuff"]

ORACLES: dict[str, tuple[Part, ...]] = {
    "none": (),
    "stuff": ("stuff",),
    "scores": ("scores",),
    "masks": ("masks",),
    "scores and masks": ("scores", "masks"),
    "all": ("scores", "masks", "stuff"),
}
"""Sets of true parts, by name. "all" is the limit of the post-processing."""

SURE = 20.0
"""Logits of the truth lie between -SURE / 2 and SURE / 2."""


@torch.inference_mode()
def with_truth(
    model: Model[SPINet], output: NetworkOutput[Features], sample: Sample, replaced: Collection[Part]
) -> Panoptic:
    """SPINet's panoptic map of an image if parts of its output were perfect.

    Args:
        output: of `run_network` for the sample's image.
        sample: the image with its ground truth.
        replaced: the perfect parts. "scores": each thing has one location with confidence 1, the one of its positive
            locations where the network's score of its class is largest; there are no others. "masks": each sampled
            location has the mask of the thing that it belongs to; a location of no thing keeps the network's mask.
            "stuff": the logits of the stuff path follow from the labels.
    """
    config = model.config.inference
    class_logits = [level[0].float() for level in output.features.class_logits]
    targets, semantic = _targets(model, output, sample)
    if "scores" in replaced:
        instances, locations = _best_locations(class_logits, targets)
        labels = targets.labels[instances]
        confidences = torch.ones(len(labels), device=labels.device)
    else:
        locations, labels, confidences = find_peaks(
            class_logits, threshold=config.threshold, peak=config.peak, top=config.top
        )
    masks, stuff_logits = masks_at(model, output, config, locations)
    if "masks" in replaced:
        logits = masks.whole()
        owners = _owners(locations, targets)
        owned = owners >= 0
        height, width = logits.shape[-2:]
        logits[owned] = SURE * (targets.masks[owners[owned], :height, :width] - 0.5)
        masks = MaskLogits.of(logits)
    if "stuff" in replaced:
        stuff_logits = semantic[:, : stuff_logits.shape[-2], : stuff_logits.shape[-1]]
    candidates = rank(locations, labels, confidences, masks, config)
    return merge_ranked(model, output, candidates, stuff_logits, config)


@dataclass(frozen=True)
class BestMask:
    """The mask of a thing's best location, before any merging. That location is the one of `with_truth`'s "scores"."""

    number: int  # of the thing in the segment map
    label: int
    score: float  # of the thing's class at that location
    mask: Bool[Tensor, "H W"]  # at the size of the image


@dataclass(frozen=True)
class MaskErrors:
    """What is wrong with a `BestMask`. Areas are in pixels of the image."""

    area: int  # of the true mask
    score: float  # of the thing's class at that location
    missed: int  # pixels of the thing that the mask lacks
    same_class: int  # pixels of the mask on other things of the class
    elsewhere: int  # other pixels of the mask that are not the thing's

    def iou(self, *, same_class: bool = True, elsewhere: bool = True) -> float:
        """Intersection over union; without false pixels of a kind if it is switched off."""
        union = self.area + same_class * self.same_class + elsewhere * self.elsewhere
        return (self.area - self.missed) / union


@torch.inference_mode()
def best_masks(model: Model[SPINet], output: NetworkOutput[Features], sample: Sample) -> Iterator[BestMask]:
    """The masks of an image's things, the thing with the largest score first. Things without a location have none.

    Args:
        output: of `run_network` for the sample's image.
        sample: the image with its ground truth.
    """
    config = model.config.inference
    class_logits = [level[0].float() for level in output.features.class_logits]
    targets, _ = _targets(model, output, sample)
    instances, locations = _best_locations(class_logits, targets)
    masks, _ = masks_at(model, output, config, locations)
    things = (sample.labels < model.space.num_things) & ~sample.crowd
    numbers = 1 + things.nonzero()[:, 0].to(model.device)[instances]  # of the things in the segment map
    rows = zip(
        numbers.tolist(), targets.labels[instances].tolist(), *(part.tolist() for part in locations), strict=True
    )
    height, width = output.network_size
    for (number, label, level, y, x), logits in zip(rows, masks.whole(), strict=True):
        enlarged = F.interpolate(logits[None, None], scale_factor=MASK_STRIDE, mode="bilinear")[..., :height, :width]
        mask = F.interpolate(enlarged, output.size, mode="bilinear")[0, 0] > mask_cut(config)
        yield BestMask(number, label, float(class_logits[level][label, y, x].sigmoid()), mask)


def mask_errors(model: Model[SPINet], output: NetworkOutput[Features], sample: Sample) -> list[MaskErrors]:
    """What is wrong with the masks of `best_masks`."""
    segment_map = sample.segment_map.to(model.device).long()
    class_map = F.pad(sample.labels, (1, 0), value=IGNORE).to(model.device)[segment_map]
    found = []
    for best in best_masks(model, output, sample):
        thing = segment_map == best.number
        false, of_class = best.mask & ~thing, class_map == best.label
        counts = (thing, thing & ~best.mask, false & of_class, false & ~of_class)
        area, missed, same_class, elsewhere = (int(part.sum()) for part in counts)
        found.append(MaskErrors(area, best.score, missed, same_class, elsewhere))
    return found


def _targets(
    model: Model[SPINet], output: NetworkOutput[Features], sample: Sample
) -> tuple[ImageTargets, Float[Tensor, "N_s h w"]]:
    """The things with all of their locations, and logits of the true stuff, at the size of the network's input."""
    building = TargetBuilder(
        strides=model.network.strides,
        space=model.space,
        samples_per_image=10**6,
        assignment=model.config.objective.assignment,
        contour_sigma=None,
    )
    true_map = sample.segment_map.to(model.device)[None, None].float()
    segment_map = F.interpolate(true_map, output.network_size, mode="nearest")[0].int()
    targets = building(segment_map, [sample.labels], [sample.crowd], [0])
    classes = torch.stack([targets.semantic[0] == label for label in range(model.space.num_outputs)])
    return targets.images[0], SURE * (F.avg_pool2d(classes[None].float(), MASK_STRIDE)[0] - 0.5)


def _best_locations(
    class_logits: list[Float[Tensor, "N_t H_l W_l"]], targets: ImageTargets
) -> tuple[Int[Tensor, "n"], Locations]:
    """The things that have a location, and for each the one with the largest score of its class."""
    places = Locations(targets.sample_level, targets.sample_y, targets.sample_x)
    labels = targets.labels[targets.sample_instance]
    rows = zip(*(part.tolist() for part in places), labels.tolist(), strict=True)
    scores = torch.tensor([float(class_logits[level][label, y, x]) for level, y, x, label in rows])
    best: dict[int, int] = {}
    for index in scores.argsort(descending=True).tolist():
        best.setdefault(int(targets.sample_instance[index]), index)
    chosen = torch.tensor([*best.values()], dtype=torch.long, device=labels.device)
    return targets.sample_instance[chosen], Locations(*(part[chosen] for part in places))


def _owners(locations: Locations, targets: ImageTargets) -> Int[Tensor, "n"]:
    """The thing at each location, -1 where there is none."""
    places = zip(targets.sample_level.tolist(), targets.sample_y.tolist(), targets.sample_x.tolist(), strict=True)
    owner = dict(zip(places, targets.sample_instance.tolist(), strict=True))
    found = zip(*(part.tolist() for part in locations), strict=True)
    return torch.tensor([owner.get(place, -1) for place in found], dtype=torch.long, device=targets.labels.device)
