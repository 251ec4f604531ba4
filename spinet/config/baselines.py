"""Settings of the baselines, each with its source. The settings shared with SPINet are in `spinet.config.schema`.

"paper" is the paper of the system. "code" is the public code of its authors: Detectron2 for Panoptic-FPN and
Panoptic-DeepLab, UPSNet's repository, AdelaiDet for CondInst. "unstated" means that neither gives the value.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, ClassVar, Literal, Self, get_args

from pydantic import ConfigDict, Discriminator

FORBID = ConfigDict(extra="forbid")


class _Published:
    RESNET_50: ClassVar[str] = "resnet50"  # timm's name of the authors' backbone
    EVERY_CLASS: ClassVar[bool] = False  # whether the semantic output needs every thing class
    COCO: ClassVar[dict[str, float]] = {}  # values that differ on COCO (code)
    CROP_HEIGHT: ClassVar[int] = 512  # height of the authors' Cityscapes crops (code), pixels

    def for_crops(self, share: float) -> Self:
        """Adapts the settings to objects smaller by factor `share` than in the authors' Cityscapes crops."""
        return self


@dataclass(frozen=True)
class PanopticFPNConfig(_Published):
    """Kirillov et al., Panoptic Feature Pyramid Networks, CVPR 2019."""

    __pydantic_config__ = FORBID

    system: Literal["panoptic_fpn"] = "panoptic_fpn"
    instances: float = 1.0  # λ_i (code)
    semantic: float = 0.5  # λ_s (code, COCO; the paper tunes it for each data set)
    anchor_scale: float = 8.0  # anchor side of each level, in strides (code, for Cityscapes crops)
    rois: int = 512  # proposals per image that train the box and mask heads (code, for Cityscapes crops)
    threshold: float = 0.5  # minimum confidence of an instance in the map (code)

    def for_crops(self, share: float) -> Self:
        return replace(self, anchor_scale=share * self.anchor_scale, rois=max(64, round(share**2 * self.rois)))


@dataclass(frozen=True)
class PanopticDeepLabConfig(_Published):
    """Cheng et al., Panoptic-DeepLab, CVPR 2020."""

    __pydantic_config__ = FORBID

    RESNET_50 = "resnet50s"  # "R-52", 64-64-128 stem (code)
    EVERY_CLASS = True  # the class of a thing comes from it
    system: Literal["panoptic_deeplab"] = "panoptic_deeplab"
    semantic: float = 1.0  # λ_sem (paper)
    centre: float = 200.0  # λ_heatmap (paper)
    offset: float = 0.01  # λ_offset (paper), for an L1 loss in pixels
    bootstrap: float = 0.2  # share of the hardest pixels in the cross entropy (code)
    small_area: int = 4096  # pixels; an instance below this area is small (paper: 64 × 64)
    small_weight: float = 3.0  # weight of small instances in the cross entropy (paper)
    sigma: float = 8.0  # width of the Gaussian at each centre, pixels (paper)
    rates: tuple[int, int, int] = (6, 12, 18)  # dilations of the atrous convolutions at stride 16 (paper)
    multi_grid: tuple[int, int, int] = (1, 2, 4)  # dilations in the backbone's last stage, times 2 (code, "mg124")
    dropout: float = 0.1  # after ASPP (code)
    threshold: float = 0.1  # minimum heat map value at a centre (paper)
    peak: int = 7  # a centre is the maximum of its peak × peak neighbourhood (paper)
    top: int = 200  # maximum number of centres (paper)
    group_all_pixels: bool = True  # as in the code; False groups only thing pixels, with the same result

    def for_crops(self, share: float) -> Self:
        return replace(self, sigma=share * self.sigma, small_area=round(share**2 * self.small_area))


@dataclass(frozen=True)
class UPSNetConfig(_Published):
    """Xiong et al., UPSNet, CVPR 2019."""

    __pydantic_config__ = FORBID

    EVERY_CLASS = True  # the panoptic head reads thing logits
    COCO: ClassVar[dict[str, float]] = {"semantic": 0.2, "panoptic": 0.1, "roi": 0.04, "semantic_layers": 3}  # code
    system: Literal["upsnet"] = "upsnet"
    instances: float = 1.0  # code
    semantic: float = 1.0  # code, Cityscapes
    panoptic: float = 0.5  # code, Cityscapes
    roi: float = 0.0  # code, Cityscapes: weight of a second cross entropy inside thing boxes
    semantic_layers: int = 2  # number of deformable convolutions in the semantic head (code, Cityscapes)
    keep_boxes: float = 0.7  # share of the things given to the panoptic head; the rest is "unknown" (code)
    anchor_scale: float = 8.0  # code
    rois: int = 512  # code
    threshold: float = 0.6  # minimum confidence of an instance in the panoptic head (code)
    nms: float = 0.5  # IoU threshold for boxes of any class (code)
    removal: float = 0.3  # drop an instance if its class already covers more than this share of it (code)

    def for_crops(self, share: float) -> Self:
        return replace(self, anchor_scale=share * self.anchor_scale, rois=max(64, round(share**2 * self.rois)))


@dataclass(frozen=True)
class CondInstConfig(_Published):
    """Tian et al., Conditional Convolutions for Instance Segmentation, ECCV 2020, with Panoptic-FPN's branch (§5.4)."""

    __pydantic_config__ = FORBID

    system: Literal["condinst"] = "condinst"
    instances: float = 1.0  # weight of all four instance losses (code)
    semantic: float = 0.5  # unstated: Panoptic-FPN's
    radius: float = 1.5  # locations this near to an object's centre of mass are positive, strides (code)
    sizes: tuple[int, int, int, int] = (64, 128, 256, 512)  # object sizes that separate the levels, pixels (code)
    samples: int = 500  # maximum number of masks trained at once on a device (code)
    candidates: int = 1000  # maximum number of locations that enter NMS, per level (code)
    nms: float = 0.6  # IoU threshold for boxes of one class (code)
    threshold: float = 0.45  # unstated: minimum confidence of an instance in the map; as in SPINet
    channels: int = 8  # channels of the mask branch (paper)
    relative: bool = True  # mask head: coordinates relative to each location (paper); off: absolute ones
    integrated: bool = False  # predict stuff from the mask branch by learned 1×1 filters (§5.4 of SPINet's paper)


AnyBaseline = PanopticFPNConfig | PanopticDeepLabConfig | UPSNetConfig | CondInstConfig
BaselineConfig = Annotated[AnyBaseline, Discriminator("system")]

System = Literal["spinet", "panoptic_fpn", "panoptic_deeplab", "upsnet", "condinst"]

TITLES: dict[str, str] = {
    "spinet": "SPINet",
    "panoptic_fpn": "Panoptic-FPN",
    "panoptic_deeplab": "Panoptic-DeepLab",
    "upsnet": "UPSNet",
    "condinst": "CondInst + semantic branch",
}
"""Display names of the systems."""

BASELINES: dict[str, type[AnyBaseline]] = {config.system: config for config in get_args(AnyBaseline)}
