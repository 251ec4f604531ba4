"""The baselines' own numbers, each with its source; everything that they share with SPINet stays in `spinet.config`.

"paper" is the system's own paper, "code" the public code of its authors (Detectron2 for Panoptic-FPN and
Panoptic-DeepLab, UPSNet's repository, AdelaiDet for CondInst); "unstated" is found in neither.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, ClassVar, Literal, Self, get_args

from pydantic import ConfigDict, Discriminator

FORBID = ConfigDict(extra="forbid")


class _Published:
    RESNET_50: ClassVar[str] = "resnet50"  # the authors' backbone, as timm names it
    EVERY_CLASS: ClassVar[bool] = False  # whether the semantic output must know each class of things
    COCO: ClassVar[dict[str, float]] = {}  # what is different on COCO (code)
    CROP_HEIGHT: ClassVar[int] = 512  # of the authors' crops of Cityscapes (code), pixels

    def for_crops(self, share: float) -> Self:
        """With numbers that suit objects smaller by this factor than those in the authors' crops of Cityscapes."""
        return self


@dataclass(frozen=True)
class PanopticFPNConfig(_Published):
    """Kirillov et al., Panoptic Feature Pyramid Networks, CVPR 2019."""

    __pydantic_config__ = FORBID

    system: Literal["panoptic_fpn"] = "panoptic_fpn"
    instances: float = 1.0  # λ_i (code)
    semantic: float = 0.5  # λ_s (code, COCO; the paper tunes it on each data set)
    anchor_scale: float = 8.0  # side of a level's anchors in strides (code, for the crops of Cityscapes)
    rois: int = 512  # proposals of an image that the heads for boxes and masks learn from (code, likewise)
    threshold: float = 0.5  # confidence an instance needs to be in the map (code)

    def for_crops(self, share: float) -> Self:
        return replace(self, anchor_scale=share * self.anchor_scale, rois=max(64, round(share**2 * self.rois)))


@dataclass(frozen=True)
class PanopticDeepLabConfig(_Published):
    """Cheng et al., Panoptic-DeepLab, CVPR 2020."""

    __pydantic_config__ = FORBID

    RESNET_50 = "resnet50s"  # "R-52", 64-64-128 stem (code)
    EVERY_CLASS = True  # things get their class from it
    system: Literal["panoptic_deeplab"] = "panoptic_deeplab"
    semantic: float = 1.0  # λ_sem (paper)
    centre: float = 200.0  # λ_heatmap (paper)
    offset: float = 0.01  # λ_offset (paper), of an L1 loss in pixels
    bootstrap: float = 0.2  # share of the hardest pixels in the cross entropy (code)
    small_area: int = 4096  # pixels; thing pixels of instances below this … (paper: 64 × 64)
    small_weight: float = 3.0  # … weigh this much in the cross entropy (paper)
    sigma: float = 8.0  # pixels, of the Gaussian at each centre (paper)
    rates: tuple[int, int, int] = (6, 12, 18)  # of the atrous convolutions at stride 16 (paper)
    multi_grid: tuple[int, int, int] = (1, 2, 4)  # dilations in the backbone's last stage, times 2 (code, "mg124")
    dropout: float = 0.1  # behind ASPP (code)
    threshold: float = 0.1  # of the heat map at a centre (paper)
    peak: int = 7  # a centre is the maximum of its peak × peak neighbourhood (paper)
    top: int = 200  # centres at most (paper)
    group_all_pixels: bool = True  # as the code does; False groups thing pixels alone, which gives the same map

    def for_crops(self, share: float) -> Self:
        return replace(self, sigma=share * self.sigma, small_area=round(share**2 * self.small_area))


@dataclass(frozen=True)
class UPSNetConfig(_Published):
    """Xiong et al., UPSNet, CVPR 2019."""

    __pydantic_config__ = FORBID

    EVERY_CLASS = True  # the panoptic head reads the logits of things
    COCO: ClassVar[dict[str, float]] = {"semantic": 0.2, "panoptic": 0.1, "roi": 0.04, "semantic_layers": 3}  # code
    system: Literal["upsnet"] = "upsnet"
    instances: float = 1.0  # code
    semantic: float = 1.0  # code, Cityscapes
    panoptic: float = 0.5  # code, Cityscapes
    roi: float = 0.0  # code, Cityscapes: of a second cross entropy, inside the boxes of things
    semantic_layers: int = 2  # deformable convolutions of the semantic head (code, Cityscapes)
    keep_boxes: float = 0.7  # share of the things that the panoptic head is shown; the rest is "unknown" (code)
    anchor_scale: float = 8.0  # code
    rois: int = 512  # code
    threshold: float = 0.6  # confidence an instance needs to enter the panoptic head (code)
    nms: float = 0.5  # IoU of boxes of any class (code)
    removal: float = 0.3  # an instance more than this share of which one of its class covers is dropped (code)

    def for_crops(self, share: float) -> Self:
        return replace(self, anchor_scale=share * self.anchor_scale, rois=max(64, round(share**2 * self.rois)))


@dataclass(frozen=True)
class CondInstConfig(_Published):
    """Tian et al., Conditional Convolutions for Instance Segmentation, ECCV 2020, with Panoptic-FPN's branch (§5.4)."""

    __pydantic_config__ = FORBID

    system: Literal["condinst"] = "condinst"
    instances: float = 1.0  # of all four instance losses (code)
    semantic: float = 0.5  # unstated: Panoptic-FPN's
    radius: float = 1.5  # strides around an object's centre of mass where locations are positive (code)
    sizes: tuple[int, int, int, int] = (64, 128, 256, 512)  # pixels, where one level's objects end (code)
    samples: int = 500  # masks trained on a device at once, at most (code)
    candidates: int = 1000  # locations of a level that enter the suppression of duplicates (code)
    nms: float = 0.6  # IoU of boxes of a class (code)
    threshold: float = 0.45  # unstated: confidence an instance needs to be in the map, here as in SPINet
    channels: int = 8  # of the mask branch (paper)
    integrated: bool = False  # stuff is read from the mask branch, by learned 1×1 filters (§5.4 of SPINet's paper)


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
"""As texts name the systems."""

BASELINES: dict[str, type[AnyBaseline]] = {config.system: config for config in get_args(AnyBaseline)}
