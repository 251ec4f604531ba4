"""§5.2 Duplicate removal: several locations of an object sample filters, but one mask should remain."""

from __future__ import annotations

import warnings

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from spinet.config import InferenceConfig


def share_kept(
    inside: Float[Tensor, "n cells"] | Bool[Tensor, "n cells"],
    labels: Int[Tensor, "n"],
    order: Int[Tensor, "n"],
    config: InferenceConfig,
) -> Float[Tensor, "n"]:
    """The share of its score that each mask keeps, sorted by score. Masks of different classes do not compete.

    A mask that keeps less than `config.keep` is a duplicate, and is dropped before the merge.

    Args:
        inside: the masks, as `mask_iou` takes them.
        labels: their classes.
        order: the masks sorted by score, the best first.
    """
    if config.duplicates == "none" or not len(order):
        return torch.ones(len(order), device=order.device)
    same = labels[order, None] == labels[order]
    iou = mask_iou(inside)[order][:, order].triu(1) * same
    if config.duplicates == "matrix":
        return matrix_nms(iou, sigma=config.matrix_sigma)
    return mask_nms(iou, threshold=config.nms_iou)


def mask_iou(inside: Float[Tensor, "n cells"] | Bool[Tensor, "n cells"]) -> Float[Tensor, "n n"]:
    """IoU of every pair of masks, given as the sparse matrix of `MaskLogits.above`, or as booleans."""
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
        iou: upper triangle, sorted by score; 0 for pairs that do not compete.
        sigma: sharpness of the decay e^(−σ IoU²).
    """
    worst = iou.amax(0)  # largest IoU of each mask with a better one
    decay = torch.exp(-sigma * (iou**2 - worst[:, None] ** 2))
    return decay.where(iou > 0, 1.0).amin(0).clamp(max=1.0)


def mask_nms(iou: Float[Tensor, "n n"], *, threshold: float) -> Float[Tensor, "n"]:
    """Plain greedy NMS on masks: 1 for a mask that is kept, 0 for one that overlaps a better kept mask."""
    competing = (iou > threshold).cpu()
    stays = torch.ones(len(iou))
    for better in range(len(iou)):
        if stays[better]:
            stays[competing[better]] = 0
    return stays.to(iou.device)
