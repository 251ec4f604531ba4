"""The interface that SPINet and the systems it is compared with share: nobody has to ask which of them a model is."""

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
from spinet.data.segments import Batch, Categories
from spinet.model.network import Network

NetworkT = TypeVar("NetworkT", bound=Network)
Outputs = TypeVar("Outputs")


@dataclass
class NetworkOutput(Generic[Outputs]):
    """What the network computes of one image of H × W pixels, before any threshold or rule; see `run_network`."""

    features: Outputs  # of a batch of this one image; SPINet's are `Features`
    size: tuple[int, int]  # H, W
    network_size: tuple[int, int]  # of the image as the network saw it, without padding, pixels
    seconds: float


@dataclass
class Panoptic:
    """The panoptic segmentation of an image of H × W pixels."""

    ids: Int[np.ndarray, "H W"]  # int32, segment id at each pixel, 0 void
    segments: list[dict[str, Any]]  # id, category_id, isthing, area; things also score, bbox (x, y, width, height)
    instances: list[dict[str, Any]]  # category_id, score, mask bool [H, W], sorted by score; empty unless asked for
    semantic: Int[np.ndarray, "H W"]  # the output of the stuff path with the largest logit (see `LabelSpace`)
    class_map: Int[np.ndarray, "H W"] | None  # the class head's best thing label, where the stuff path has one "thing"


class Countable(Protocol):
    """Ground truth of a batch in the form that a system's losses need."""

    def counts(self) -> tuple[float, ...]:
        """Numbers of the items that the losses are means over; they are summed over the parts of a step."""
        ...


class TargetBuilder(Protocol):
    """Makes ground truth of segment maps; the arguments are those of `spinet.objective.targets.TargetBuilder`."""

    def __call__(
        self,
        segment_maps: Tensor,
        labels: list[Tensor],
        crowd: list[Tensor],
        seeds: list[int],
        smallest_maps: Tensor | None = None,
    ) -> Countable: ...


class Training(nn.Module, ABC, Generic[NetworkT]):
    """Network and losses in one forward, as data-parallel training needs it."""

    network: NetworkT

    @property
    def train_only(self) -> nn.Module | None:
        """Parameters that exist in training alone, and are saved apart from the network."""
        return None

    @abstractmethod
    def forward(
        self, batch: Batch, targets: Any, counts: tuple[Tensor, ...], progress: float = 1.0
    ) -> dict[str, Tensor]:
        """The weighted losses of a batch, and their sum as "total".

        Args:
            targets: of the system's own `TargetBuilder`.
            counts: of `Countable.counts`, over the whole step.
            progress: how much of the run is done, 0 … 1.
        """


@dataclass
class Model(ABC, Generic[NetworkT]):
    """A network with what is needed to train and to use it."""

    network: NetworkT
    config: Config
    categories: Categories

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return self.network.mean.device

    @property
    def space(self) -> LabelSpace:
        """Which output of the stuff path is which class."""
        return LabelSpace.of(self.config.objective.semantic_classes, self.categories)

    @abstractmethod
    def target_builder(self) -> TargetBuilder:
        """What makes the ground truth that the losses need."""

    @abstractmethod
    def for_training(self) -> Training:
        """The network with its losses."""

    @abstractmethod
    def postprocess(self, output: NetworkOutput, config: InferenceConfig, *, instances: bool) -> Panoptic:
        """From the outputs of the network to a panoptic map.

        Args:
            config: the rules.
            instances: also give the instances down to `ap_threshold`, with their masks.
        """
