"""§3.4 and §5.2 Losses of the class head, the things (Eq. 1) and the stuff (Eq. 2).

Every function returns the sum over its items, not the mean: the objective divides by counts of the whole step. All
take and return float32.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from spinet.data.label_space import IGNORE


def focal(
    logits: Float[Tensor, "*s"], target: Float[Tensor, "*s"], *, alpha: float = 0.25, gamma: float = 2.0
) -> Float[Tensor, "*s"]:
    """Focal loss [20] for targets between 0 and 1: `α_y |y − p|^γ BCE(p, y)`, elementwise.

    For y in {0, 1} it is the usual `−α_y (1 − p_y)^γ log p_y`, with α for y = 1 and 1 − α for y = 0.
    """
    p = logits.sigmoid()
    weight = (1 - alpha) + (2 * alpha - 1) * target
    return weight * (target - p).abs() ** gamma * F.binary_cross_entropy_with_logits(logits, target, reduction="none")


def class_loss(
    class_logits: list[Float[Tensor, "B N_t H_l W_l"]],
    classes: list[Int[Tensor, "B H_l W_l"]],
    *,
    alpha: float = 0.25,
    gamma: float = 2.0,
) -> Float[Tensor, ""]:
    """L_cls: focal loss of every class at every location that is not ignored, summed."""
    total = torch.zeros((), device=class_logits[0].device)
    for logits, label in zip(class_logits, classes, strict=True):
        one_hot = torch.arange(logits.shape[1], device=logits.device)[:, None, None] == label[:, None]
        loss = focal(logits.float(), one_hot.float(), alpha=alpha, gamma=gamma)
        total = total + (loss * (label != IGNORE)[:, None]).sum()
    return total


def dice(
    probability: Float[Tensor, "n p"], target: Float[Tensor, "n p"], *, square: bool = True, eps: float = 1e-5
) -> Float[Tensor, "n"]:
    """DICE [25] of n masks of p pixels: 1 − 2 Σ p y / (Σ p² + Σ y²), without the squares if `square` is off."""
    overlap = torch.einsum("np,np->n", probability, target)
    if square:
        size = torch.einsum("np,np->n", probability, probability) + torch.einsum("np,np->n", target, target)
    else:
        size = probability.sum(1) + target.sum(1)
    return 1 - (2 * overlap + eps) / (size + eps)


def thing_loss(
    logits: Float[Tensor, "n h w"], masks: Float[Tensor, "n h w"], *, square: bool = True
) -> Float[Tensor, ""]:
    """Eq. 1: L_t = DICE(y_t, σ(ŷ_t)), summed over the sampled filters of an image."""
    return dice(logits.float().sigmoid().flatten(1), masks.flatten(1), square=square).sum()


def bootstrapped_cross_entropy(
    logits: Float[Tensor, "B N_s h w"], labels: Int[Tensor, "B h w"], *, top: float
) -> Float[Tensor, ""]:
    """L_ce [41], summed over the pixels that have a label.

    The loss of an image is the mean over the hardest share `top` of its labelled pixels, as in [41], times the number
    of its labelled pixels. `top` 1 is general cross entropy.
    """
    loss = F.cross_entropy(logits, labels, ignore_index=IGNORE, reduction="none").flatten(1)
    if top == 1:
        return loss.sum()
    labelled = (labels != IGNORE).flatten(1).sum(1)
    kept = (top * labelled.double()).round().clamp(min=1)
    # unlabelled pixels have loss 0, so they follow all labelled ones
    hardest = loss.topk(max(1, round(top * loss.shape[1])), dim=1).values
    hardest = hardest * (torch.arange(hardest.shape[1], device=loss.device) < kept[:, None])
    return (hardest.sum(1) * labelled / kept).sum().to(loss.dtype)


def multi_class_dice(
    logits: Float[Tensor, "B N_s h w"],
    labels: Int[Tensor, "B h w"],
    present: Bool[Tensor, "B N_s"],
    *,
    square: bool = True,
) -> Float[Tensor, ""]:
    """Eq. 2: L_md = DICE(y_s, ψ(ŷ_s)), ψ the softmax over classes, summed over the classes present in each image."""
    valid = (labels != IGNORE)[:, None]
    probability = logits.softmax(1) * valid
    one_hot = (torch.arange(logits.shape[1], device=logits.device)[:, None, None] == labels[:, None]).float()
    loss = dice(probability.flatten(2).flatten(0, 1), one_hot.flatten(2).flatten(0, 1), square=square)
    return (loss * present.flatten()).sum()
