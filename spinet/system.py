"""The common interface of SPINet and the systems that it is compared with."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor, nn

from spinet.config import Config, InferenceConfig
from spinet.data.label_space import LabelSpace
from spinet.data.segments import Batch, Categories, Category
from spinet.model.network import Network

NetworkT = TypeVar("NetworkT", bound=Network)
Outputs = TypeVar("Outputs")


@dataclass
class NetworkOutput(Generic[Outputs]):
    """Output of the network for one image of H × W pixels, before post-processing; see `run_network`."""

    features: Outputs  # for a batch of this image only; SPINet's are `Features`
    size: tuple[int, int]  # H, W
    network_size: tuple[int, int]  # size of the network's input image in pixels, without padding
    seconds: float


@dataclass
class Panoptic:
    """The panoptic segmentation of an image of H × W pixels."""

    ids: Int[np.ndarray, "H W"]  # int32, segment id at each pixel, 0 void
    segments: list[dict[str, Any]]  # id, category_id, isthing, area; things also score, bbox (x, y, width, height)
    instances: list[dict[str, Any]]  # category_id, score, mask bool [H, W], sorted by score; empty unless requested
    semantic: Int[np.ndarray, "H W"]  # the output of the stuff path with the largest logit (see `LabelSpace`)
    class_map: Int[np.ndarray, "H W"] | None  # the class head's best thing label, if the stuff path has one "thing"


def segment_info(
    identity: int, category: Category, area: int, *, score: float | None = None, box: list[int] | None = None
) -> dict[str, Any]:
    """A segment in the form of `Panoptic`; only things have a score and a box."""
    info: dict[str, Any] = {"id": identity, "category_id": category.id, "isthing": category.isthing}
    return info | ({"area": area} if score is None else {"score": score, "area": area, "bbox": box})


class Countable(Protocol):
    """Ground truth of a batch, in the form for a system's losses."""

    def counts(self) -> tuple[float, ...]:
        """Numbers of items that the losses average over; they are summed over the parts of a step."""
        ...


class TargetBuilder(Protocol):
    """Makes ground truth from segment maps; for arguments see `spinet.objective.targets.TargetBuilder`."""

    def __call__(
        self,
        segment_maps: Tensor,
        labels: list[Tensor],
        crowd: list[Tensor],
        seeds: list[int],
        smallest_maps: Tensor | None = None,
    ) -> Countable: ...


class Training(nn.Module, ABC, Generic[NetworkT]):
    """Network and losses in one forward pass, for data-parallel training."""

    network: NetworkT

    @property
    def train_only(self) -> nn.Module | None:
        """Module that exists only in training; it is saved in a separate file."""
        return None

    @abstractmethod
    def forward(
        self, batch: Batch, targets: Any, counts: tuple[Tensor, ...], progress: float = 1.0
    ) -> dict[str, Tensor]:
        """The weighted losses of a batch, and their sum as "total".

        Args:
            targets: targets from the system's own `TargetBuilder`.
            counts: sums of `Countable.counts` over the whole step.
            progress: finished share of the run, 0 … 1.
        """


@dataclass
class Model(ABC, Generic[NetworkT]):
    """A network with its configuration and categories, for training and use."""

    network: NetworkT
    config: Config
    categories: Categories

    @property
    def device(self) -> torch.device:
        """Device of the network."""
        return self.network.mean.device

    @property
    def space(self) -> LabelSpace:
        """The classes of the stuff path's outputs."""
        return LabelSpace.of(self.config.objective.semantic_classes, self.categories)

    @abstractmethod
    def target_builder(self) -> TargetBuilder:
        """The builder of ground truth for the losses."""

    @abstractmethod
    def for_training(self) -> Training:
        """The network with its losses."""

    @abstractmethod
    def postprocess(self, output: NetworkOutput, config: InferenceConfig, *, instances: bool) -> Panoptic:
        """Computes a panoptic map from the network's output.

        Args:
            config: thresholds and rules.
            instances: also return instances with scores down to `ap_threshold`, with their masks.
        """
