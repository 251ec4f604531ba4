"""§5.2 Candidates: confident locations, the filters sampled there, and their masks."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from spinet.config import InferenceConfig
from spinet.inference.duplicates import share_kept
from spinet.inference.mask_logits import MaskLogits, mask_cut
from spinet.machine import arithmetic
from spinet.model.filter_sampling import Locations
from spinet.model.spinet import Features, SPINet
from spinet.system import Model, NetworkOutput


@dataclass
class Candidates:
    """Instances before they are merged, sorted by score."""

    labels: Int[Tensor, "n"]  # thing class
    scores: Float[Tensor, "n"]  # class confidence × mean mask probability × `kept`
    confidences: Float[Tensor, "n"]  # of the class head; the threshold of §5.2 applies to these
    kept: Float[Tensor, "n"]  # share of the score that remains after duplicate removal, 0 … 1
    logits: MaskLogits  # stride 4 of the network's input
    locations: Locations  # where their filters were sampled
    areas: Int[Tensor, "n"]  # number of cells of each mask

    def __getitem__(self, chosen: Tensor) -> Candidates:
        return Candidates(
            self.labels[chosen],
            self.scores[chosen],
            self.confidences[chosen],
            self.kept[chosen],
            self.logits[chosen],
            Locations(*(part[chosen] for part in self.locations)),
            self.areas[chosen],
        )


@torch.inference_mode()
def find_candidates(
    model: Model[SPINet],
    output: NetworkOutput[Features],
    config: InferenceConfig | None = None,
    *,
    threshold: float | None = None,
) -> tuple[Candidates, Float[Tensor, "N_s h w"]]:
    """Instances before they are merged, and the logits of the stuff path, by one single-shot convolution (§3.4).

    Args:
        config: rules to use instead of the model's own.
        threshold: minimum confidence to sample a filter; by default that of the rules.

    Returns:
        The candidates sorted by score, duplicates marked in `kept` but not dropped, and the stuff logits, both at
        stride 4 of the network's input; `Resampler.of(output)` resamples them to pixels of the image.
    """
    candidates, stuff_logits = find_ranked(model, output, config or model.config.inference, threshold)
    return candidates[candidates.areas > 0], stuff_logits


def find_ranked(
    model: Model[SPINet], output: NetworkOutput[Features], config: InferenceConfig, threshold: float | None
) -> tuple[Candidates, Float[Tensor, "N_s h w"]]:
    """`find_candidates`, but with empty masks, which come last."""
    locations, labels, confidences = find_peaks(
        [level[0].float() for level in output.features.class_logits],
        threshold=config.threshold if threshold is None else threshold,
        peak=config.peak,
        top=config.top,
    )
    masks, stuff_logits = masks_at(model, output, config, locations)
    return rank(locations, labels, confidences, masks, config), stuff_logits


def masks_at(
    model: Model[SPINet], output: NetworkOutput[Features], config: InferenceConfig, locations: Locations
) -> tuple[MaskLogits, Float[Tensor, "N_s h w"]]:
    """Mask logits of the filters sampled at some locations, and the logits of the stuff path."""
    network = model.network
    with arithmetic(config.precision, model.device):
        thing_logits, stuff_logits = network.single_shot(output.features, 0, locations)
    positions = network.positions(locations)
    if network.reach is None:
        masks = MaskLogits.of(thing_logits)
    else:
        masks = MaskLogits.around(thing_logits, positions, reach=network.reach, stride=network.PHI_STRIDE)
    if config.connected:
        masks = masks.connected(mask_cut(config), positions / network.PHI_STRIDE)
    return masks, stuff_logits.float()


def find_peaks(
    class_logits: list[Float[Tensor, "N_t H_l W_l"]], *, threshold: float, peak: int, top: int
) -> tuple[Locations, Int[Tensor, "n"], Float[Tensor, "n"]]:
    """Locations whose filters are sampled, with class and confidence, sorted by confidence.

    Args:
        threshold: of the confidence (§5.2: 0.45).
        peak: a location must be the largest of its peak × peak neighbourhood in its class map; 1 takes all.
        top: maximum number of locations.
    """
    scores, peaks, shapes, start = [], [], [], 0
    for logits in class_logits:
        score = logits.sigmoid()
        largest = F.max_pool2d(score[None], peak, stride=1, padding=peak // 2)[0] if len(score) else score
        scores.append(score.flatten())
        peaks.append(((score >= threshold) & (score == largest)).flatten())
        shapes.append((start, score.shape[1] * score.shape[2], score.shape[2]))
        start += score.numel()
    # once for all levels, since the host waits for the device each time
    found = torch.nonzero(torch.cat(peaks))[:, 0]
    confidence, order = torch.cat(scores)[found].sort(descending=True, stable=True)
    confidence, found = confidence[:top], found[order[:top]]
    table = torch.tensor(shapes).to(found.device, non_blocking=True)
    level = (found[:, None] >= table[1:, 0]).sum(1)
    first, cells, width = table[level].unbind(1)
    label, cell = (found - first) // cells, (found - first) % cells
    return Locations(level, cell // width, cell % width), label, confidence


def rank(
    locations: Locations,
    labels: Int[Tensor, "n"],
    confidences: Float[Tensor, "n"],
    logits: MaskLogits,
    config: InferenceConfig,
) -> Candidates:
    """Scores masks and lowers the scores of duplicates; empty masks come last.

    On CPUs, masks are sparse matrices. On CUDA, they are dense, and one matrix product gives all overlaps.
    """
    if logits.values.is_cuda:
        cells = logits.whole().flatten(1)
        inside = cells > mask_cut(config)
        area, probability = inside.sum(1), (cells.sigmoid() * inside).sum(1)
    else:
        inside = logits.above(mask_cut(config))
        area = torch.bincount(inside.indices()[0], minlength=len(logits))
        # unsafe: its check of the lengths fails if there is no mask
        probability = torch.segment_reduce(inside.values().sigmoid(), "sum", lengths=area, unsafe=True)
    scores = confidences * probability / area.clamp(min=1)
    order = scores.argsort(descending=True, stable=True)
    kept = share_kept(inside, labels, order, config)
    scores = scores[order] * kept
    best = scores.argsort(descending=True, stable=True)
    chosen = order[best]
    locations = Locations(*(part[chosen] for part in locations))
    return Candidates(
        labels[chosen], scores[best], confidences[chosen], kept[best], logits[chosen], locations, area[chosen]
    )
