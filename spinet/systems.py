"""SPINet in the common interface, and `build_model` for all systems."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spinet.baselines.build import build_baseline
from spinet.config import Config, ConfigError, InferenceConfig
from spinet.data.label_space import LabelSpace
from spinet.data.segments import Batch, Categories
from spinet.inference.postprocess import postprocess
from spinet.model.filter_sampling import Locations
from spinet.model.spinet import Features, SPINet
from spinet.objective.objective import Objective
from spinet.objective.targets import Counts, TargetBuilder, Targets
from spinet.system import Model, NetworkOutput, Panoptic, Training


class SPINetTraining(Training[SPINet]):
    """SPINet with its objective."""

    def __init__(self, network: SPINet, objective: Objective):
        super().__init__()
        self.network = network
        self.objective = objective

    @property
    def train_only(self) -> nn.Module:
        """The auxiliary heads (§4)."""
        return self.objective

    def forward(
        self, batch: Batch, targets: Targets, counts: tuple[Tensor, ...], progress: float = 1.0
    ) -> dict[str, Tensor]:
        features = self.network(batch.images, batch.windows)
        # cuDNN searches its fastest algorithm for every new number of filters: keep the number constant on CUDA
        most = self.objective.config.samples_per_image if batch.images.is_cuda else 0
        things, stuff = [], []
        for index, image in enumerate(targets.images):
            count = len(image.sample_level)
            locations = (image.sample_level, image.sample_y, image.sample_x)
            locations = Locations(*(F.pad(part, (0, max(0, most - count))) for part in locations))
            thing_logits, stuff_logits = self.network.single_shot(features, index, locations)
            things.append(thing_logits[:count])
            stuff.append(stuff_logits)
        with torch.autocast(batch.images.device.type, enabled=False):
            return self.objective(
                class_logits=features.class_logits,
                thing_logits=things,
                stuff_logits=torch.stack(stuff),
                phi=features.all_phi.float(),
                targets=targets,
                counts=Counts(*counts),
                progress=progress,
            )


@dataclass
class SPINetModel(Model[SPINet]):
    """SPINet in the common interface of all systems."""

    def target_builder(self) -> TargetBuilder:
        config = self.config.objective
        return TargetBuilder(
            strides=self.network.strides,
            space=self.space,
            semantic_stride=config.semantic_stride,
            dice_classes=config.dice_classes,
            samples_per_image=config.samples_per_image,
            assignment=config.assignment,
            sampling=config.sampling,
            contour_sigma=config.contour_sigma if config.inter_class_contour else None,
            divisor=self.network.divisor,
        )

    def for_training(self) -> SPINetTraining:
        return SPINetTraining(self.network, Objective.from_config(self.config))

    def postprocess(self, output: NetworkOutput[Features], config: InferenceConfig, *, instances: bool) -> Panoptic:
        return postprocess(self, output, config, instances=instances)


def build_model(config: Config, categories: Categories, *, weights_follow: bool = False) -> Model:
    """An untrained network for a configuration and the classes of a data set; see `Backbone` for `weights_follow`.

    Raises:
        ConfigError: the stuff path would have no outputs.
    """
    space = LabelSpace.of(config.objective.semantic_classes, categories)
    if not space.num_outputs:
        missing = "stuff" if categories.all else "classes"
        raise ConfigError(f"objective.semantic_classes is {space.kind!r}, and the data have no {missing}; choose 'all'")
    if config.baseline is not None:
        return build_baseline(config, categories, weights_follow=weights_follow)
    network = SPINet.from_config(
        config.model, num_things=space.num_things, num_stuff=space.num_outputs, weights_follow=weights_follow
    )
    return SPINetModel(network, config, categories)
