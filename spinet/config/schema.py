"""Every setting of an experiment, with its source beside it.

"§" and "Table" refer to the paper; "unstated" means that the paper does not give the value. `make docs` generates
`docs/unstated.md`, which also lists the alternatives, from these marks.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from pydantic import ConfigDict

from spinet.config.baselines import BaselineConfig

FORBID = ConfigDict(extra="forbid")

Levels = Literal["2-5", "2-6", "3-7"]
Precision = Literal["auto", "fp32", "bf16", "fp16"]
SemanticClasses = Literal["stuff", "stuff+thing", "all"]


class ConfigError(ValueError):
    """A configuration field does not exist, or its value is invalid."""


@dataclass(frozen=True)
class ModelConfig:
    """§3 and §5.2: the network."""

    __pydantic_config__ = FORBID

    backbone: str = "resnet50c"  # §5.2: stem of three 3×3 convolutions (unstated: 32-32-64); any timm feature backbone
    norm: Literal["frozen", "batch", "group"] = "frozen"  # §5.2: frozen; "batch" or "group" without pretraining
    pretrained: bool = True  # §5.2: ImageNet weights (warn if unavailable); without them, "frozen" becomes "batch"
    freeze_stages: int = 0  # unstated: 0 freezes nothing, 1 the stem, 2 everything up to C2, … 5 up to C5
    group_channels: int | None = None  # unstated (§5.2): channels per group of group norm; None: 32 groups (8 of 256)
    deformable: bool = False  # Table 1, last row; unstated where: 3×3 convolutions of the last three stages
    fpn_channels: int = 256  # unstated: the width in the FPN paper, and the only one that gives 42.2 M parameters
    filter_levels: Levels = "2-5"  # §3.1, Table 4: input levels of the filter sampling module
    feature_levels: Levels = "2-5"  # §3.1, Table 4: input levels of the Panoptic-Feature generator
    head_convs: int = 4  # §3.2: "four sequential convolutions"
    filter_channels: int = 256  # D_f (§3.2), unstated: follows from the parameter count (128 gives 39.0 M, not 42.2 M)
    feature_channels: int = 256  # D_φ, §3.3
    kernel: int = 3  # k (§3.2), unstated: follows from the parameter count (1 gives 36.7 M, not 42.2 M)
    separate: bool = False  # Table 5: separate Panoptic-Feature generators for things and stuff
    coordinate_frame: Literal["image", "crop", "pixels"] = "image"  # unstated: span of −1 … 1; "pixels": from 0
    coordinate_unit: float = 512.0  # unstated: pixels of 1 in the frame "pixels"; waves repeat after two units
    coordinate_frequencies: int = 0  # unstated (§3.3): 0 is CoordConv, as cited; F adds sin, cos of π·2^f·x, f < F
    coordinate_skip: bool = False  # beyond the paper: add learned projections of coordinates to φ and F_l
    detail_skip: bool = False  # beyond the paper: add a learned projection of C2, which has stride 4, to φ
    equal_taps: bool = True  # unstated (§3.3): initial deconvolution has equal taps; False: PyTorch's default
    feature_relu: bool = False  # unstated (§3.3): ReLU after the deconvolution; similar systems differ
    reach: int | None = None  # unstated (§3.4): maximum distance of a mask from its filter, pixels; None: no limit
    filter_scale: float = 1.0  # unstated (§3.2): initial scale of filters; 1: logits have F_l's variance times φ's


@dataclass(frozen=True)
class ObjectiveConfig:
    """§3.4, §4 and Eq. 7: the losses. A weight of 0 disables a loss."""

    __pydantic_config__ = FORBID

    classes: float = 1.0  # λ_0 (§5.2, Cityscapes)
    stuff: float = 1.0  # λ_1
    things: float = 5.0  # λ_2
    inter_class_contour: float = 20.0  # λ_3
    intra_class_triplet: float = 1.0  # λ_4
    multi_class_dice: bool = True  # Table 3, "M.C.D"
    bootstrap: float = 0.2  # §5.2: share of the hardest pixels; 1 is ordinary cross entropy (COCO)
    bootstrap_anneal: float = 0.0  # beyond the paper: part of the run in which `bootstrap` falls from 1 to its value
    triplet_ramp: float = 0.0  # beyond the paper: part of the run in which λ_4 rises from 0 to its value
    semantic_classes: SemanticClasses = "all"  # unstated: classes of the stuff path; mIoU needs all
    semantic_stride: Literal[1, 4] = 1  # unstated (§3.4): stride of the stuff losses; 1 is label resolution
    dice_classes: Literal["present", "all"] = "present"  # unstated (Eq. 2): averaged classes; absent ones have loss ≈ 1
    dice_square: bool = True  # unstated (Eq. 1): squares in the denominator, as in the cited V-Net
    samples_per_image: int = 125  # unstated (§3.2): 500 locations for 4 images on a device (CondInst's limit)
    assignment: Literal["centre", "any"] = "centre"  # unstated (§5.2 "interpolated"): pixels that decide a cell's label
    sampling: Literal["location", "instance"] = "location"  # §3.2 "uniformly"; "instance": equal shares (unstated)
    contour_sigma: float = 1.0  # unstated (§4 "soft contour"): width in pixels; 0 is a binary contour
    focal_alpha: float = 0.25  # unstated: as in the cited RetinaNet
    focal_gamma: float = 2.0  # unstated: as in the cited RetinaNet


@dataclass(frozen=True)
class InputConfig:
    """§5.2: preprocessing of images. Sizes are in pixels, height before width."""

    __pydantic_config__ = FORBID

    scale: tuple[float, float] = (512, 2048)  # unstated: as in similar systems on Cityscapes
    scale_unit: Literal["short_side", "factor"] = "short_side"  # unstated: "factor" multiplies the image's size
    max_long_side: int | None = None  # unstated: 1333 on COCO, as in similar systems
    crop: tuple[int, int] | None = (512, 1024)  # unstated: as in similar systems; None = whole image
    flip: float = 0.5  # unstated: probability of a horizontal flip, as in similar systems
    colour_jitter: float = 0.4  # unstated: maximum change of brightness, contrast, saturation; 0 on COCO
    photo: float = 0.0  # beyond the paper: share of images with changed hue, gamma, blur, noise, JPEG quality
    endless: bool = False  # beyond the paper: draw SynthCity's training scenes on the fly, without repetition
    test_scale: float | None = None  # §5.2: "preserve the full resolution"; COCO: 800 (unstated: as in similar systems)
    whole_masks: bool = False  # unstated (§5.2, overlaps): read overlapping masks from COCO's instances_*.json
    workers: int = 4  # loader processes per device


@dataclass(frozen=True)
class TrainConfig:
    """§5.2: the schedule. The learning rate is for `reference_batch` images a step and scales with `batch_size`."""

    __pydantic_config__ = FORBID

    iterations: int = 95_000  # §5.2, Cityscapes
    batch_size: int = 32  # §5.2: 8 GPUs × 4 images; fewer devices accumulate gradients
    images_per_device: int = 4  # §5.2: images per forward pass of a device
    reference_batch: int = 32  # unstated: batch size of `learning_rate`, which scales linearly
    learning_rate: float = 0.01  # §5.2
    schedule: Literal["step", "poly", "cosine"] = "step"  # §5.2
    milestones: tuple[float, ...] = (80 / 95, 90 / 95)  # §5.2: after these parts of the run, divide the rate by 10
    backbone_rate: float = 1.0  # unstated: factor on the learning rate of the backbone
    fc_rate: float = 1.0  # unstated: factor on the learning rate of the fully connected layer (§3.2)
    warmup: int = 1000  # unstated: iterations of linear warm-up from 0.001 of the rate, as in similar systems
    optimizer: Literal["sgd", "adamw"] = "sgd"  # unstated: SGD as in similar systems; AdamW in the small presets
    momentum: float = 0.9  # unstated: as in similar systems
    weight_decay: float = 1e-4  # unstated: as in similar systems; 0 on norms and biases
    clip_norm: float = 35.0  # unstated: maximum norm of the gradient, as in similar systems
    precision: Precision = "auto"  # unstated; "auto": bf16 if the hardware supports it, else fp32
    seed: int = 0
    checkpoint_every: int = 1000
    evaluate_every: int = 5000
    snapshots: tuple[int, ...] = ()  # keep the weights after these iterations, 0 for the start: frames of a film
    log: Literal["csv", "tensorboard"] = "csv"


@dataclass(frozen=True)
class InferenceConfig:
    """§5.2: from class scores to a panoptic map."""

    __pydantic_config__ = FORBID

    threshold: float = 0.45  # §5.2: minimum confidence to sample a filter
    ap_threshold: float = 0.05  # unstated: lower threshold for AP, which ranks instances
    peak: Literal[1, 3, 5, 7] = 3  # unstated: sample maxima of peak × peak cells; 1: all. 5 finds more small things
    top: int = 100  # unstated: maximum number of filters; COCO's AP also uses at most 100
    duplicates: Literal["matrix", "mask", "none"] = "matrix"  # unstated: matrix NMS on masks, or plain mask NMS
    matrix_sigma: float = 2.0  # unstated: as in SOLOv2
    nms_iou: float = 0.5  # unstated: IoU threshold of plain mask NMS, the usual value
    keep: float = 0.5  # unstated: drop an instance that keeps a smaller share of its score (matrix NMS: IoU > ≈ 0.6)
    mask_threshold: float = 0.5  # unstated: as in Panoptic-FPN, whose post-processing §5.2 follows
    connected: bool = False  # unstated: keep only the part of a mask connected to its filter's location
    overlap: float = 0.5  # unstated: as in Panoptic-FPN; drop an instance if more of its area is already covered
    contested: Literal["score", "mask"] = "score"  # unstated: whose is a pixel of two masks: better score or logit
    agreement: float | None = None  # beyond the paper: share of a mask with its class, enough to drop the rest
    fill_threshold: float | None = None  # unstated: minimum probability to give an instance free pixels of its class
    stuff_threshold: float = 0.2  # unstated: minimum probability of stuff where the stuff path predicts a thing
    min_component_area: int = 32  # pixels; for the comparison with connected components of the semantic output
    precision: Literal["auto", "fp32", "bf16"] = "auto"  # unstated: number format of the network
    min_stuff_area: float = 2048 / (1024 * 2048)  # unstated: Panoptic-DeepLab's 2048 px as a share; on COCO 4096


@dataclass(frozen=True)
class Config:
    """All settings of one experiment."""

    __pydantic_config__ = FORBID

    model: ModelConfig = field(default_factory=ModelConfig)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    input: InputConfig = field(default_factory=InputConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    inference: InferenceConfig = field(default_factory=InferenceConfig)
    baseline: BaselineConfig | None = None  # another system instead of SPINet, see `with_system`
