"""§5.2 Candidates and their duplicates: every pixel of an object may sample a filter for it, one mask should stay."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from spinet.config import InferenceConfig
from spinet.inference.mask_logits import MaskLogits
from spinet.model.filter_sampling import Locations


@dataclass
class Candidates:
    """Instances before they are merged, by falling score."""

    labels: Int[Tensor, "n"]  # thing class
    scores: Float[Tensor, "n"]  # class confidence × mean mask probability × what the removal of duplicates left
    confidences: Float[Tensor, "n"]  # of the class head: what the threshold of §5.2 is about
    kept: Float[Tensor, "n"]  # share of the score that the removal of duplicates left, 0 … 1
    logits: MaskLogits  # stride 4 of the network's input
    locations: Locations  # where their filters were sampled
    areas: Int[Tensor, "n"]  # cells of each mask

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


def rank(
    locations: Locations,
    labels: Int[Tensor, "n"],
    confidences: Float[Tensor, "n"],
    logits: MaskLogits,
    config: InferenceConfig,
) -> Candidates:
    """Scores masks, and marks duplicates down; those that are empty come last.

    Masks are held as the processor likes them: on CPUs by their cells, which are few, on CUDA by all cells of the map,
    whose overlaps are one product of matrices.
    """
    if logits.values.is_cuda:
        cells = logits.whole().flatten(1)
        inside = cells > mask_cut(config)
        area, probability = inside.sum(1), (cells.sigmoid() * inside).sum(1)
    else:
        inside = logits.above(mask_cut(config))
        area = torch.bincount(inside.indices()[0], minlength=len(logits))
        # unsafe: its check of the lengths fails where there is no mask
        probability = torch.segment_reduce(inside.values().sigmoid(), "sum", lengths=area, unsafe=True)
    scores = confidences * probability / area.clamp(min=1)
    order = scores.argsort(descending=True, stable=True)
    kept = torch.ones_like(scores)
    if config.duplicates != "none" and len(order):
        same = labels[order, None] == labels[order]
        iou = mask_iou(inside)[order][:, order].triu(1) * same
        if config.duplicates == "matrix":
            kept = matrix_nms(iou, sigma=config.matrix_sigma)
        else:
            kept = mask_nms(iou, threshold=config.nms_iou)
    scores = scores[order] * kept
    best = scores.argsort(descending=True, stable=True)
    chosen = order[best]
    places = Locations(*(part[chosen] for part in locations))
    return Candidates(
        labels[chosen], scores[best], confidences[chosen], kept[best], logits[chosen], places, area[chosen]
    )


def mask_cut(config: InferenceConfig) -> float:
    """The logit above which a pixel belongs to a mask."""
    return float(torch.logit(torch.tensor(config.mask_threshold)))


def mask_iou(inside: Float[Tensor, "n cells"] | Bool[Tensor, "n cells"]) -> Float[Tensor, "n n"]:
    """Intersection over union of every pair of masks: the sparse matrix of `MaskLogits.above`, or true and false."""
    if inside.is_sparse:
        masks = torch.sparse_coo_tensor(
            inside.indices(),
            torch.ones_like(inside.values()),
            inside.shape,
            is_coalesced=True,
            check_invariants=False,
        )
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta")
            intersection = torch.sparse.mm(masks, masks.t()).to_dense()
    else:
        masks = inside.float()  # counts below 2^24 are exact
        intersection = masks @ masks.t()
    area = intersection.diagonal()
    return intersection / (area[:, None] + area - intersection).clamp(min=1)


def matrix_nms(iou: Float[Tensor, "n n"], *, sigma: float) -> Float[Tensor, "n"]:
    """Matrix NMS of SOLOv2, Gaussian: the share of its score that each mask keeps.

    Args:
        iou: upper triangle, by falling score; 0 for pairs that do not compete.
        sigma: sharpness of the decay e^(−σ IoU²).
    """
    worst = iou.amax(0)  # how much each mask is itself suppressed
    decay = torch.exp(-sigma * (iou**2 - worst[:, None] ** 2))
    return decay.where(iou > 0, 1.0).amin(0).clamp(max=1.0)


def mask_nms(iou: Float[Tensor, "n n"], *, threshold: float) -> Float[Tensor, "n"]:
    """Plain greedy NMS on masks: 1 for a mask that stays, 0 for one that overlaps a better one that stays."""
    competing = (iou > threshold).cpu()
    stays = torch.ones(len(iou))
    for better in range(len(iou)):
        if stays[better]:
            stays[competing[better]] = 0
    return stays.to(iou.device)
