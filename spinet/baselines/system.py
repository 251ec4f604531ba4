"""Base of all baselines: a network, its losses, and its post-processing to a panoptic map."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import Any, Generic

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor, nn

from spinet.baselines.targets import BaselineTargetBuilder, BaselineTargets
from spinet.config import InferenceConfig
from spinet.data import Batch, Categories
from spinet.data.label_space import IGNORE, LabelSpace
from spinet.inference.merge import extents
from spinet.model.backbone import Backbone
from spinet.model.layers import group_norm
from spinet.model.network import Network
from spinet.system import Model, NetworkOutput, Outputs, Panoptic, Training, segment_info


@dataclass
class Instance:
    """A detected thing, for AP, whether it is in the panoptic map or not."""

    label: int
    score: float
    mask: Bool[Tensor, "H W"]


@dataclass
class Segmentation:
    """Post-processing result of one image; masks and maps have one size, initially that of the network's input."""

    ids: Int[Tensor, "H W"]  # 0: void, i + 1: segment i
    labels: list[int]  # of the segments, things first as in `Categories.all`
    scores: list[float | None]  # of the segments, None for stuff
    semantic: Int[Tensor, "H W"]  # label of the semantic output
    instances: list[Instance]  # sorted by score, the highest first

    def resized(self, size: tuple[int, int]) -> Segmentation:
        """The same at another size, by nearest neighbours."""
        if size == tuple(self.ids.shape):
            return self
        rows, columns = (
            ((torch.arange(out, device=self.ids.device) + 0.5) * (inside / out)).long()
            for out, inside in zip(size, self.ids.shape, strict=True)
        )
        return replace(
            self,
            ids=self.ids[rows][:, columns],
            semantic=self.semantic[rows][:, columns],
            instances=[replace(instance, mask=instance.mask[rows][:, columns]) for instance in self.instances],
        )

    def segments(self, categories: Categories) -> list[dict[str, Any]]:
        """The segments with pixels, in the form of `Panoptic`."""
        segments = []
        count = len(self.labels)
        areas = torch.bincount(self.ids.flatten(), minlength=count + 1)[1:].tolist()
        found = zip(self.labels, self.scores, areas, extents(self.ids, count), strict=True)
        for identity, (label, score, area, box) in enumerate(found, start=1):
            if area == 0:
                continue
            segments.append(segment_info(identity, categories.all[label], area, score=score, box=box))
        return segments


class Baseline(Network, Generic[Outputs]):
    """A network. Times of the network are those of `forward`; `losses` and `postprocess` take its outputs."""

    def __init__(self, *, backbone: Backbone, classes: LabelSpace, divisor: int):
        super().__init__(backbone=backbone, divisor=divisor)
        self.classes = classes

    @abstractmethod
    def forward(self, images: UInt8[Tensor, "B 3 H W"]) -> Outputs:
        """Outputs of a batch of RGB images, 0 … 255, of any size."""

    @abstractmethod
    def losses(self, outputs: Outputs, targets: BaselineTargets) -> dict[str, Tensor]:
        """Weighted losses, each a mean over the device's batch, as in the systems' own code."""

    @abstractmethod
    def postprocess(
        self, outputs: Outputs, size: tuple[int, int], config: InferenceConfig, *, instances: bool
    ) -> Segmentation:
        """The panoptic map of one image by the published rule.

        Args:
            outputs: outputs for a batch of this image only.
            size: size of the network's input image without padding, in pixels.
            config: common settings: `ap_threshold`, `top`, `mask_threshold`, `overlap`, `min_stuff_area`.
            instances: also return instances with scores down to `ap_threshold`.
        """


class BaselineTraining(Training[Baseline]):
    """A baseline with its losses; they do not depend on the progress of the run."""

    def __init__(self, network: Baseline):
        super().__init__()
        self.network = network

    def forward(
        self, batch: Batch, targets: BaselineTargets, counts: tuple[Tensor, ...], progress: float = 1.0
    ) -> dict[str, Tensor]:
        losses = self.network.losses(self.network(batch.images), targets)
        share = len(batch.images) / counts[0]  # share of this part in the whole step
        losses = {name: share * loss for name, loss in losses.items()}
        return losses | {"total": torch.stack(list(losses.values())).sum()}


@dataclass
class BaselineModel(Model[Baseline]):
    """A baseline in the common interface of all systems."""

    def target_builder(self) -> BaselineTargetBuilder:
        return BaselineTargetBuilder(space=self.space, divisor=self.network.divisor)

    def for_training(self) -> BaselineTraining:
        return BaselineTraining(self.network)

    def postprocess(self, output: NetworkOutput, config: InferenceConfig, *, instances: bool) -> Panoptic:
        found = self.network.postprocess(output.features, output.network_size, config, instances=instances)
        found = found.resized(output.size)
        return Panoptic(
            ids=found.ids.cpu().numpy(),
            segments=found.segments(self.categories),
            instances=[
                {"category_id": self.categories.all[i.label].id, "score": i.score, "mask": i.mask.cpu().numpy()}
                for i in found.instances
            ],
            semantic=found.semantic.cpu().numpy(),
            class_map=None,
        )


def upsampled(logits: Float[Tensor, "B C h w"], size: tuple[int, int], stride: int) -> Float[Tensor, "B C H W"]:
    """Upsamples maps by their stride to the image's resolution, in float32, and crops them to H × W."""
    logits = F.interpolate(logits.float(), scale_factor=stride, mode="bilinear", align_corners=False)
    return logits[..., : size[0], : size[1]]


def mean_cross_entropy(logits: Float[Tensor, "B C h w"], labels: Int[Tensor, "B h w"]) -> Float[Tensor, ""]:
    """Mean cross entropy over the pixels that are not ignored; 0 if all are ignored."""
    loss = F.cross_entropy(logits, labels, ignore_index=IGNORE, reduction="sum")
    return loss / (labels != IGNORE).sum().clamp(min=1)


def with_group_norm(module: nn.Module) -> None:
    """Replaces batch norm by group norm, for training from scratch with few images."""
    for name, child in list(module.named_modules()):
        if isinstance(child, nn.BatchNorm2d):
            module.set_submodule(name, group_norm(child.num_features))
