"""Fig. 2 SPINet: FPN, filter sampling module, Panoptic-Feature generator, single-shot convolution."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from spinet.config import ModelConfig
from spinet.model.backbone import Backbone
from spinet.model.filter_sampling import FilterSampling, Locations
from spinet.model.fpn import FPN, LEVELS, STRIDE
from spinet.model.layers import Coordinates, set_group_channels
from spinet.model.network import Network
from spinet.model.panoptic_feature import PanopticFeatureGenerator
from spinet.model.single_shot import SingleShot, within_reach


@dataclass
class Features:
    """The output of the network for a batch, before filters are applied."""

    class_logits: list[Float[Tensor, "B N_t H_l W_l"]]
    filter_features: list[Float[Tensor, "B D_f H_l W_l"]]
    phi: Float[Tensor, "B D_phi H W"]  # the Panoptic-Feature, stride 4
    phi_stuff: Float[Tensor, "B D_phi H W"]  # the same; in the separate variant (Table 5) a second feature

    @property
    def all_phi(self) -> Float[Tensor, "B D H W"]:
        """The input of the auxiliary tasks: φ, or both features of the separate variant, concatenated."""
        return self.phi if self.phi is self.phi_stuff else torch.cat([self.phi, self.phi_stuff], dim=1)


class SPINet(Network):
    """Single-shot path integrated panoptic segmentation network.

    `forward` computes the features of a batch, `single_shot` the logits of one of its images. The auxiliary heads,
    which only training needs, are in the objective.
    """

    PHI_STRIDE = 4

    def __init__(
        self,
        *,
        backbone: Backbone,
        fpn: FPN,
        filter_sampling: FilterSampling,
        filter_levels: str,
        panoptic_feature: PanopticFeatureGenerator,
        feature_levels: str,
        single_shot: SingleShot,
        stuff_feature: PanopticFeatureGenerator | None = None,
        reach: int | None = None,
    ):
        levels = (*LEVELS[filter_levels], *LEVELS[feature_levels])
        super().__init__(backbone=backbone, divisor=max(STRIDE[level] for level in levels))
        self.fpn = fpn
        self.filter_sampling = filter_sampling
        self.filter_levels = LEVELS[filter_levels]
        self.panoptic_feature = panoptic_feature
        self.feature_levels = LEVELS[feature_levels]
        self.single_shot_convolution = single_shot
        self.stuff_feature = stuff_feature
        self.reach = reach

    @classmethod
    def from_config(
        cls, config: ModelConfig, *, num_things: int, num_stuff: int, weights_follow: bool = False
    ) -> SPINet:
        """Builds the network.

        Args:
            config: settings of the network.
            num_things: N_t, thing classes.
            num_stuff: N_s, outputs of the stuff path (`LabelSpace.num_outputs`).
            weights_follow: trained weights are loaded later, so do not load ImageNet weights.
        """
        backbone = Backbone(
            name=config.backbone,
            norm=config.norm,
            pretrained=config.pretrained,
            weights_follow=weights_follow,
            freeze_stages=config.freeze_stages,
            deformable=config.deformable,
        )
        width = config.fpn_channels
        coordinates = Coordinates(
            frame=config.coordinate_frame, unit=config.coordinate_unit, frequencies=config.coordinate_frequencies
        )
        filter_levels, feature_levels = LEVELS[config.filter_levels], LEVELS[config.feature_levels]

        def generator() -> PanopticFeatureGenerator:
            return PanopticFeatureGenerator(
                in_channels=width,
                channels=config.feature_channels,
                strides=[STRIDE[level] for level in feature_levels],
                coordinates=coordinates,
                relu=config.feature_relu,
                equal_taps=config.equal_taps,
                coordinate_skip=config.coordinate_skip,
                detail_channels=backbone.channels[0] if config.detail_skip else None,
            )

        network = cls(
            backbone=backbone,
            fpn=FPN(in_channels=backbone.channels, channels=width, levels={*filter_levels, *feature_levels}),
            filter_sampling=FilterSampling(
                in_channels=width,
                num_things=num_things,
                coordinates=coordinates,
                num_convs=config.head_convs,
                filter_channels=config.filter_channels,
                feature_channels=config.feature_channels,
                kernel=config.kernel,
                filter_scale=config.filter_scale,
                coordinate_skip=config.coordinate_skip,
            ),
            filter_levels=config.filter_levels,
            panoptic_feature=generator(),
            feature_levels=config.feature_levels,
            single_shot=SingleShot(num_stuff=num_stuff, feature_channels=config.feature_channels, kernel=config.kernel),
            stuff_feature=generator() if config.separate else None,
            reach=config.reach,
        )
        if config.group_channels is not None:
            set_group_channels(network, config.group_channels)
        return network

    @property
    def strides(self) -> list[int]:
        """Image pixels per cell, for each level of the filter sampling module."""
        return [STRIDE[level] for level in self.filter_levels]

    def forward(self, images: UInt8[Tensor, "B 3 H W"], windows: Float[Tensor, "B 4"] | None = None) -> Features:
        """Features of a batch of RGB images of any size.

        Args:
            images: 0 … 255, of uint8 or a floating type.
            windows: left, top, full width, full height of each image in the image that it was cropped from, pixels. By
                default each is a whole image.
        """
        height, width = images.shape[-2:]
        if windows is None:
            windows = torch.zeros(len(images), 4, device=images.device)
            windows[:, 2], windows[:, 3] = width, height
        features = self.backbone(self.normalised(images))
        pyramid = self.fpn(features)
        class_logits, filter_features = self.filter_sampling(
            [pyramid[level] for level in self.filter_levels], self.strides, windows
        )
        levels = [pyramid[level] for level in self.feature_levels]
        phi = self.panoptic_feature(levels, windows, features[0])
        phi_stuff = phi if self.stuff_feature is None else self.stuff_feature(levels, windows, features[0])
        return Features(class_logits, filter_features, phi, phi_stuff)

    def single_shot(
        self, features: Features, index: int, locations: Locations
    ) -> tuple[Float[Tensor, "n H W"], Float[Tensor, "N_s H W"]]:
        """Mask logits at stride 4 of n things, with filters sampled at `locations`, and of all stuff classes.

        Args:
            features: of a batch.
            index: of an image in the batch.
            locations: n locations on the levels of that image.
        """
        thing_filters = self.filter_sampling.sample([f[index] for f in features.filter_features], locations)
        if self.stuff_feature is None:
            things, stuff = self.single_shot_convolution(features.phi[index], thing_filters)
        else:
            phi_things, phi_stuff = features.phi[index], features.phi_stuff[index]
            things, stuff = self.single_shot_convolution.separate(phi_things, phi_stuff, thing_filters)
        if self.reach is not None:
            things = within_reach(things, self.positions(locations), reach=self.reach, stride=self.PHI_STRIDE)
        return things, stuff

    def positions(self, locations: Locations) -> Float[Tensor, "n 2"]:
        """Row and column of the centre of each location's cell, in pixels of the network's input."""
        strides = torch.tensor(self.strides).to(locations.level.device, non_blocking=True)
        stride = strides[locations.level, None]
        return (torch.stack([locations.y, locations.x], dim=1) + 0.5) * stride
