"""§5.2 Inference: an image in, features, sampled filters, masks, and one panoptic map out.

Every rule that the paper leaves open is a field of `InferenceConfig`.
"""

from __future__ import annotations

from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from spinet.baselines.system import Baseline, Reading
from spinet.config import InferenceConfig
from spinet.data.readers import as_image
from spinet.data.segments import Categories, Sample
from spinet.data.transforms import EvalTransform
from spinet.duplicates import Candidates, mask_cut, rank
from spinet.mask_logits import MaskLogits
from spinet.merging import Resampler, merge
from spinet.model.filter_sampling import Locations
from spinet.model.spinet import Features, SPINet
from spinet.precision import resolve
from spinet.weights import Model


@dataclass
class Encoded:
    """What the network computes of an image of H × W pixels, before any filter is sampled: see `encode`."""

    features: Features  # of a batch of this one image; of a baseline its own outputs
    size: tuple[int, int]  # H, W
    network_size: tuple[int, int]  # of the image as the network saw it, without padding, pixels
    seconds: float

    def resampler(self, stride: int = SPINet.PHI_STRIDE) -> Resampler:
        """From maps of that stride (the Panoptic-Feature's, and so that of all logits) to pixels of the image."""
        device = self.features.phi.device
        return Resampler(network_size=self.network_size, size=self.size, device=device, stride=stride)


@dataclass
class Prediction:
    """What `predict` says about an image of H × W pixels."""

    ids: Int[np.ndarray, "H W"]  # int32, segment id at each pixel, 0 void
    segments: list[dict[str, Any]]  # id, category_id, isthing, area; things also score, bbox (x, y, width, height)
    instances: list[dict[str, Any]]  # category_id, score, mask bool [H, W], by falling score; empty unless asked for
    semantic: Int[np.ndarray, "H W"]  # the label that the stuff path alone gives (see `num_semantic`)
    class_map: Int[np.ndarray, "H W"] | None  # the class head's best thing label, where the stuff path has one "thing"
    network_seconds: float
    post_seconds: float


def predict(model: Model, image: UInt8[np.ndarray, "H W 3"] | Any, *, instances: bool = False) -> Prediction:
    """The panoptic segmentation of an RGB image of any size, at its own resolution: `encode`, then `read_out`.

    Args:
        model: from `load_model`.
        image: uint8 RGB; also grey [H, W], a Pillow image, or the path of an image file, see `as_image`.
        instances: also give the instances down to the lower threshold that AP is computed with, with their masks.

    Raises:
        ValueError: the image is none of these; the message says what it is.
    """
    return read_out(model, encode(model, image), instances=instances)


@torch.inference_mode()
def encode(model: Model, image: UInt8[np.ndarray, "H W 3"] | Any) -> Encoded:
    """Runs the network, once: class logits, filters, and the Panoptic-Feature of an RGB image of any size.

    Nothing in the result depends on thresholds or merge rules, so `read_out` may be called on it again and again.

    Raises:
        ValueError: the image is none that `as_image` takes.
    """
    image = as_image(image)
    start = perf_counter()
    scaled = _test_transform(model)(_bare_sample(image)).image
    with _arithmetic(model, model.config.inference):
        features = model.network(scaled[None].to(model.device))
    synchronise(model.device)
    return Encoded(
        features=features,
        size=(image.shape[0], image.shape[1]),
        network_size=(scaled.shape[1], scaled.shape[2]),
        seconds=perf_counter() - start,
    )


@torch.inference_mode()
def find_candidates(
    model: Model, encoded: Encoded, config: InferenceConfig | None = None, *, threshold: float | None = None
) -> tuple[Candidates, Float[Tensor, "N_s h w"]]:
    """Instances before they are merged, and the logits of the stuff path, by one single-shot convolution (§3.4).

    Args:
        config: rules to use instead of the model's own.
        threshold: confidence at which a filter is sampled; by default the rules' own.

    Returns:
        The candidates by falling score, duplicates marked in `kept` but not dropped, and the stuff logits, both at
        stride 4 of the network's input; `encoded.resampler()` brings them to pixels of the image.
    """
    config = config or model.config.inference
    locations, labels, confidences = find_peaks(
        [level[0].float() for level in encoded.features.class_logits],
        threshold=config.threshold if threshold is None else threshold,
        peak=config.peak,
        top=config.top,
    )
    network = model.network
    with _arithmetic(model, config):
        thing_logits, stuff_logits = network.single_shot(encoded.features, 0, locations)
    places = network.places(locations)
    if network.reach is None:
        masks = MaskLogits.of(thing_logits)
    else:
        masks = MaskLogits.around(thing_logits, places, reach=network.reach, stride=network.PHI_STRIDE)
    if config.connected:
        masks = masks.connected(mask_cut(config), places / network.PHI_STRIDE)
    return rank(locations, labels, confidences, masks, config), stuff_logits.float()


@torch.inference_mode()
def read_out(
    model: Model, encoded: Encoded, config: InferenceConfig | None = None, *, instances: bool = False
) -> Prediction:
    """Sampled filters → masks → one panoptic map, by the rules of §5.2: all of `predict` but the network.

    Args:
        model: the one that made `encoded`.
        config: rules to use instead of the model's own, such as `replace(model.config.inference, threshold=0.3)`.
        instances: as for `predict`.
    """
    config = config or model.config.inference
    start = perf_counter()
    if isinstance(model.network, Baseline):
        reading = model.network.read(encoded.features, encoded.network_size, config, instances=instances)
        return _prediction(reading.resized(encoded.size), model.categories, encoded.seconds, start)
    threshold = min(config.ap_threshold, config.threshold) if instances else config.threshold
    candidates, stuff_logits = find_candidates(model, encoded, config, threshold=threshold)
    resampler = encoded.resampler()
    semantic = resampler.labels(stuff_logits)
    confident = candidates[(candidates.confidences >= config.threshold) & (candidates.kept >= config.keep)]
    kind = model.config.objective.semantic_classes
    ids, segments = merge(confident, stuff_logits, semantic, resampler, model.categories, config, kind)
    found = _instances(candidates, resampler, model.categories, config) if instances else []
    class_map = None
    if kind == "stuff+thing" and instances:
        class_logits = _finest([level[0].float() for level in encoded.features.class_logits])
        class_map = encoded.resampler(model.network.strides[0]).whole(class_logits).argmax(0).cpu().numpy()
    return Prediction(
        ids=ids.cpu().numpy(),
        segments=segments,
        instances=found,
        semantic=semantic.cpu().numpy(),
        class_map=class_map,
        network_seconds=encoded.seconds,
        post_seconds=perf_counter() - start,
    )


def _prediction(reading: Reading, categories: Categories, network_seconds: float, start: float) -> Prediction:
    """What a baseline read, in the form that everything is evaluated in."""
    segments = reading.segments(categories)
    found = [
        {"category_id": categories.all[i.label].id, "score": i.score, "mask": i.mask.cpu().numpy()}
        for i in reading.instances
    ]
    return Prediction(
        ids=reading.ids.cpu().numpy(),
        segments=segments,
        instances=found,
        semantic=reading.semantic.cpu().numpy(),
        class_map=None,
        network_seconds=network_seconds,
        post_seconds=perf_counter() - start,
    )


def find_peaks(
    class_logits: list[Float[Tensor, "N_t H_l W_l"]], *, threshold: float, peak: int, top: int
) -> tuple[Locations, Int[Tensor, "n"], Float[Tensor, "n"]]:
    """Places whose filters are sampled, with class and confidence, by falling confidence.

    Args:
        threshold: of the confidence (§5.2: 0.45).
        peak: a place must be the largest of its peak × peak neighbourhood in its class map; 1 takes all.
        top: places at most.
    """
    places, labels, confidences = [], [], []
    for level, logits in enumerate(class_logits):
        score = logits.sigmoid()
        largest = F.max_pool2d(score[None], peak, stride=1, padding=peak // 2)[0]
        label, y, x = torch.nonzero((score >= threshold) & (score == largest), as_tuple=True)
        places.append(torch.stack([torch.full_like(y, level), y, x], dim=1))
        labels.append(label)
        confidences.append(score[label, y, x])
    place, label, confidence = torch.cat(places), torch.cat(labels), torch.cat(confidences)
    confidence, order = confidence.sort(descending=True, stable=True)
    order = order[:top]
    return Locations(*place[order].unbind(1)), label[order], confidence[:top]


def _instances(
    candidates: Candidates, resampler: Resampler, categories: Categories, config: InferenceConfig
) -> list[dict[str, Any]]:
    cut = mask_cut(config)
    found = []
    for number, window in enumerate(resampler.windows(candidates.logits, cut)):
        mask = np.zeros(resampler.size, dtype=bool)
        mask[window] = (resampler.one(candidates.logits, number, window) > cut).cpu().numpy()
        found.append(mask)
    return [
        {"category_id": categories.all[label].id, "score": score, "mask": mask}
        for label, score, mask in zip(candidates.labels.tolist(), candidates.scores.tolist(), found, strict=True)
    ]


def _finest(class_logits: list[Float[Tensor, "N_t H_l W_l"]]) -> Float[Tensor, "N_t H_0 W_0"]:
    """The largest class logits over all levels, at the size of the first."""
    size = class_logits[0].shape[-2:]
    return torch.stack([F.interpolate(level[None], size, mode="bilinear")[0] for level in class_logits]).amax(0)


def _arithmetic(model: Model, config: InferenceConfig) -> torch.autocast:
    reduced = resolve(config.precision, model.device) == "bf16"
    return torch.autocast(model.device.type, torch.bfloat16, enabled=reduced)


def _test_transform(model: Model) -> EvalTransform:
    source = model.config.input
    return EvalTransform(scale=source.test_scale, scale_unit=source.scale_unit, max_long_side=source.max_long_side)


def _bare_sample(image: np.ndarray) -> Sample:
    nothing = torch.zeros(0, dtype=torch.int64)
    return Sample(
        image_id=0,
        image=torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1),
        segment_map=torch.zeros(image.shape[:2], dtype=torch.int32),
        labels=nothing,
        crowd=nothing.bool(),
    )


def synchronise(device: torch.device) -> None:
    """Waits until the device has done all that it was asked for."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
