"""Eq. 7 The total loss of SPINet. It contains the auxiliary heads, which inference does not need."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from spinet.config import Config, ObjectiveConfig
from spinet.objective.auxiliary import InterClassContour, IntraClassTriplet
from spinet.objective.losses import bootstrapped_cross_entropy, class_loss, multi_class_dice, thing_loss
from spinet.objective.targets import MASK_STRIDE, Counts, Targets


class Objective(nn.Module):
    """L = λ_0 L_cls + λ_1 L_s + λ_2 L_t + λ_3 L_inter + λ_4 L_intra, with L_s = L_ce + L_md."""

    def __init__(self, *, config: ObjectiveConfig, feature_channels: int):
        super().__init__()
        self.config = config
        self.intra = IntraClassTriplet(feature_channels=feature_channels) if config.intra_class_triplet else None
        self.inter = (
            InterClassContour(feature_channels=feature_channels, alpha=config.focal_alpha, gamma=config.focal_gamma)
            if config.inter_class_contour
            else None
        )

    @classmethod
    def from_config(cls, config: Config) -> Objective:
        """The objective of a network. In the separate variant (Table 5), the heads read both features."""
        features = 2 if config.model.separate else 1
        return cls(config=config.objective, feature_channels=features * config.model.feature_channels)

    def forward(
        self,
        *,
        class_logits: list[Float[Tensor, "B N_t H_l W_l"]],
        thing_logits: list[Float[Tensor, "n h w"]],
        stuff_logits: Float[Tensor, "B N_s h w"],
        phi: Float[Tensor, "B D_phi h w"],
        targets: Targets,
        counts: Counts,
        progress: float = 1.0,
    ) -> dict[str, Float[Tensor, ""]]:
        """The terms of Eq. 7, weighted, and their sum as "total".

        Args:
            class_logits: of every level.
            thing_logits: of the sampled filters of each image, stride 4.
            stuff_logits: stride 4.
            phi: the Panoptic-Feature, stride 4; in the separate variant both features, concatenated.
            counts: of the items in the whole step, so that the terms of its parts add up to the terms of the step.
            progress: completed share of the run, 0 … 1.
        """
        config = self.config
        stuff = stuff_logits.float()
        if config.semantic_stride < MASK_STRIDE:
            stuff = F.interpolate(stuff, size=targets.semantic.shape[-2:], mode="bilinear", align_corners=False)
        top = 1 - (1 - config.bootstrap) * _ramp(progress, config.bootstrap_anneal)
        cross_entropy = bootstrapped_cross_entropy(stuff, targets.semantic, top=top)
        things = [
            # void and crowd pixels are ignored in the mask loss
            thing_loss(
                logits.masked_fill(~image.valid, -1e4), image.masks[image.sample_instance], square=config.dice_square
            )
            for logits, image in zip(thing_logits, targets.images, strict=True)
        ]
        classes = class_loss(class_logits, targets.classes, alpha=config.focal_alpha, gamma=config.focal_gamma)
        losses = {
            "class": config.classes * classes / _or_one(counts.positives),
            "cross_entropy": config.stuff * cross_entropy / _or_one(counts.semantic_pixels),
            "things": config.things * torch.stack(things).sum() / _or_one(counts.samples),
        }
        if config.multi_class_dice:
            dice = multi_class_dice(stuff, targets.semantic, targets.present, square=config.dice_square)
            losses["stuff_dice"] = config.stuff * dice / _or_one(counts.stuff_pairs)
        if self.inter is not None and targets.contour is not None:
            contour = self.inter(phi, targets.contour)
            losses["contour"] = config.inter_class_contour * contour / _or_one(counts.contour_pixels)
        if self.intra is not None:
            triplets = [
                self.intra(p, image.halves, image.negatives) for p, image in zip(phi, targets.images, strict=True)
            ]
            weight = config.intra_class_triplet * _ramp(progress, config.triplet_ramp)
            losses["triplet"] = weight * torch.stack(triplets).sum() / _or_one(counts.triplets)
        losses["total"] = torch.stack(list(losses.values())).sum()
        return losses


def _or_one(count: float | Tensor) -> Tensor:
    """The count, or 1 if it is 0. A count may be below 1, as it is averaged over processes."""
    count = torch.as_tensor(count, dtype=torch.float32)
    return torch.where(count > 0, count, 1.0)


def _ramp(progress: float, part: float) -> float:
    """Rises from 0 at the start of the run to 1 after `part` of it."""
    return min(1.0, progress / part) if part else 1.0
