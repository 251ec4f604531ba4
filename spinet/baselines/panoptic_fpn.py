"""Panoptic-FPN (Kirillov et al., CVPR 2019): Mask R-CNN, and a semantic branch on the same pyramid."""

from __future__ import annotations

import math
from itertools import pairwise

from jaxtyping import Float
from torch import Tensor, nn

from spinet.baselines.mask_rcnn import LEVELS, STRIDES, Detector, DetectorOutputs, placed
from spinet.baselines.merge import segmentation
from spinet.baselines.system import Segmentation, mean_cross_entropy, upsampled
from spinet.baselines.targets import BaselineTargets
from spinet.config import InferenceConfig
from spinet.config.baselines import PanopticFPNConfig
from spinet.model.layers import ConvGNReLU


class PanopticFPN(Detector[PanopticFPNConfig]):
    """The network, its losses λ_i L_instances + λ_s L_semantic, and the authors' merge."""

    def make_semantic_head(self, channels: int, outputs: int) -> nn.Module:
        return SemanticBranch(channels=channels, outputs=outputs)

    def losses(self, outputs: DetectorOutputs, targets: BaselineTargets) -> dict[str, Tensor]:
        losses = self.instance_losses(outputs, targets)
        losses = {name: self.config.instances * loss for name, loss in losses.items()}
        logits = upsampled(outputs.semantic, targets.size, STRIDES[0])
        return losses | {"semantic": self.config.semantic * mean_cross_entropy(logits, targets.semantic)}

    def postprocess(
        self, outputs: DetectorOutputs, size: tuple[int, int], config: InferenceConfig, *, instances: bool
    ) -> Segmentation:
        threshold = self.config.threshold
        detections = outputs.detections[0]
        things = placed(detections if instances else detections.above(threshold), size, config)
        semantic = upsampled(outputs.semantic, size, STRIDES[0])[0].argmax(0)
        return segmentation(things, semantic, self.classes, config, threshold=threshold, instances=instances)


class SemanticBranch(nn.Module):
    """Logits at stride 4 from P2 … P5: each level is convolved and upsampled to stride 4, then all are added."""

    def __init__(self, *, channels: int, outputs: int):
        super().__init__()
        width = channels // 2  # 128 of 256
        self.levels = nn.ModuleList()
        for stride in STRIDES[: len(LEVELS)]:
            doublings = int(math.log2(stride // STRIDES[0]))
            widths = [channels] + [width] * max(1, doublings)
            convs = [ConvGNReLU(before, after) for before, after in pairwise(widths)]
            up = nn.Upsample(scale_factor=2, mode="bilinear") if doublings else nn.Identity()
            self.levels.append(nn.Sequential(*(layer for conv in convs for layer in (conv, up))))
        self.predictor = nn.Conv2d(width, outputs, 1)

    def forward(self, levels: list[Float[Tensor, "B D h w"]]) -> Float[Tensor, "B N_s H W"]:
        return self.predictor(sum(branch(level) for branch, level in zip(self.levels, levels, strict=True)))
