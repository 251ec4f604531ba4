"""Every number of an experiment, once, with its source beside it.

"§" and "Table" point into the paper; "unstated" means that the paper leaves the choice open. `docs/unstated.md` is
generated from these marks (`make docs`) and says which alternatives exist.
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
    """A configuration value that does not exist or makes no sense."""


@dataclass(frozen=True)
class ModelConfig:
    """§3 and §5.2: the network."""

    __pydantic_config__ = FORBID

    backbone: str = "resnet50c"  # §5.2: stem of three 3×3 convolutions (unstated: 32-32-64); any timm feature backbone
    norm: Literal["frozen", "batch", "group"] = "frozen"  # §5.2 frozen; "batch" or "group" when nothing is pretrained
    pretrained: bool = True  # §5.2: ImageNet weights; without them the run says so and "frozen" becomes "batch"
    freeze_stages: int = 0  # unstated: 0 trains all; 1 keeps the stem, 2 all up to C2, … 5 all up to C5
    group_channels: int | None = None  # unstated (§5.2): channels a group of group norm; None is GN-32, 8 of 256
    deformable: bool = False  # Table 1, last row; unstated where: here the 3×3 convolutions of the last three stages
    fpn_channels: int = 256  # unstated: FPN's own width, and the only one that fits 42.2 M
    filter_levels: Levels = "2-5"  # §3.1, Table 4: levels that the filter sampling module reads
    feature_levels: Levels = "2-5"  # §3.1, Table 4: levels that the Panoptic-Feature generator reads
    head_convs: int = 4  # §3.2: "four sequential convolutions"
    filter_channels: int = 256  # D_f (§3.2), unstated: pinned by the parameter counts (128 gives 39.0 M, not 42.2 M)
    feature_channels: int = 256  # D_φ, §3.3
    kernel: int = 3  # k (§3.2), unstated: pinned by the parameter counts (1 gives 36.7 M, not 42.2 M)
    separate: bool = False  # Table 5: one Panoptic-Feature generator each for things and stuff
    coordinate_frame: Literal["image", "crop", "pixels"] = "image"  # unstated: spans −1 … 1, so crops agree; or 512 px
    coordinate_frequencies: int = 0  # unstated (§3.3): 0 is CoordConv, as cited; F adds sin, cos of π·2^f·x, f < F
    coordinate_skip: bool = False  # beyond the paper: learned projections of them are also added to φ and to F_l
    equal_taps: bool = True  # unstated (§3.3): the deconvolution starts with equal taps; False is PyTorch's own start
    feature_relu: bool = False  # unstated (§3.3): a ReLU after the deconvolution; similar systems differ
    reach: int | None = None  # unstated (§3.4): pixels a mask may extend from its filter's location; None = whole image
    filter_scale: float = 1.0  # unstated (§3.2): initial scale of filters; 1: logits vary as F_l times φ


@dataclass(frozen=True)
class ObjectiveConfig:
    """§3.4, §4 and Eq. 7: the losses. A weight of 0 switches a loss off."""

    __pydantic_config__ = FORBID

    classes: float = 1.0  # λ_0 (§5.2, Cityscapes)
    stuff: float = 1.0  # λ_1
    things: float = 5.0  # λ_2
    inter_class_contour: float = 20.0  # λ_3
    intra_class_triplet: float = 1.0  # λ_4
    multi_class_dice: bool = True  # Table 3, "M.C.D"
    bootstrap: float = 0.2  # §5.2: share of the hardest pixels; 1 is plain cross entropy (COCO)
    bootstrap_anneal: float = 0.0  # beyond the paper: part of the run in which this share falls from 1 to its value
    triplet_ramp: float = 0.0  # beyond the paper: part of the run in which λ_4 rises from 0 to its value
    semantic_classes: SemanticClasses = "all"  # unstated: classes of the stuff path; mIoU needs all
    semantic_stride: Literal[1, 4] = 1  # unstated (§3.4): resolution of the stuff losses; 1 is that of the labels
    dice_classes: Literal["present", "all"] = "present"  # unstated (Eq. 2): averaged classes; an absent one costs ≈ 1
    dice_square: bool = True  # unstated (Eq. 1): squared denominator (V-Net, the cited form)
    samples_per_image: int = 125  # unstated (§3.2): 500 locations for 4 images on a device (CondInst's cap)
    assignment: Literal["centre", "any"] = "centre"  # unstated (§5.2 "interpolated"): the pixels of a cell that decide
    sampling: Literal["location", "instance"] = "location"  # §3.2 "uniformly"; "instance" = equal shares (unstated)
    contour_sigma: float = 1.0  # unstated (§4 "soft contour"): its width, pixels; 0 is a binary contour
    focal_alpha: float = 0.25  # unstated: RetinaNet's, the cited form
    focal_gamma: float = 2.0  # unstated: RetinaNet's, the cited form


@dataclass(frozen=True)
class InputConfig:
    """§5.2: images on their way to the network. Sizes are pixels, height before width."""

    __pydantic_config__ = FORBID

    scale: tuple[float, float] = (512, 2048)  # unstated: as in similar systems on Cityscapes
    scale_unit: Literal["short_side", "factor"] = "short_side"  # unstated: "factor" multiplies the image's own
    max_long_side: int | None = None  # unstated: 1333 on COCO, as in similar systems
    crop: tuple[int, int] | None = (512, 1024)  # unstated: as in similar systems; None = whole image
    flip: float = 0.5  # unstated: share of mirrored images, as in similar systems
    colour_jitter: float = 0.4  # unstated: how far brightness, contrast, saturation go from 1 at most; 0 on COCO
    photo: float = 0.0  # beyond the paper: share of images with other hues, gamma, blur, noise and JPEG artefacts
    endless: bool = False  # beyond the paper: a SynthCity's training scenes are drawn on the fly, none of them twice
    test_scale: float | None = None  # §5.2: "preserve the full resolution"; COCO: 800 (unstated: similar systems)
    whole_masks: bool = False  # unstated (§5.2, overlaps): COCO's instances_*.json is read, so that masks can overlap
    workers: int = 4  # loader processes a device


@dataclass(frozen=True)
class TrainConfig:
    """§5.2: the schedule. The paper's is for `reference_batch` images a step: the rate scales with `batch_size`."""

    __pydantic_config__ = FORBID

    iterations: int = 95_000  # §5.2, Cityscapes
    batch_size: int = 32  # §5.2: 8 GPUs × 4; over fewer devices the rest is accumulated
    images_per_device: int = 4  # §5.2: images that a device takes at once
    reference_batch: int = 32  # unstated: the batch that `learning_rate` is meant for; the rate scales linearly
    learning_rate: float = 0.01  # §5.2
    schedule: Literal["step", "poly", "cosine"] = "step"  # §5.2
    milestones: tuple[float, ...] = (80 / 95, 90 / 95)  # §5.2: shares of the run after which the rate falls tenfold
    backbone_rate: float = 1.0  # unstated: factor of the backbone's learning rate
    fc_rate: float = 1.0  # unstated: factor of the learning rate of §3.2's fully connected layer
    warmup: int = 1000  # unstated: linear warm-up from a thousandth, as in similar systems
    optimizer: Literal["sgd", "adamw"] = "sgd"  # unstated: SGD as in similar systems; AdamW in the small presets
    momentum: float = 0.9  # unstated: as in similar systems
    weight_decay: float = 1e-4  # unstated: as in similar systems; 0 on norms and biases
    clip_norm: float = 35.0  # unstated: maximum norm of the gradient, as in similar systems
    precision: Precision = "auto"  # unstated; "auto": bf16 where the processor has it, else fp32
    seed: int = 0
    checkpoint_every: int = 1000
    evaluate_every: int = 5000
    log: Literal["csv", "tensorboard"] = "csv"


@dataclass(frozen=True)
class InferenceConfig:
    """§5.2: from class scores to a panoptic map."""

    __pydantic_config__ = FORBID

    threshold: float = 0.45  # §5.2: confidence at which a filter is sampled
    ap_threshold: float = 0.05  # unstated: a lower one for AP, which ranks instances
    peak: Literal[1, 3, 5, 7] = 3  # unstated: only maxima of a peak × peak neighbourhood are sampled; 1 takes all
    top: int = 100  # unstated: maximum number of filters; COCO's AP uses as many instances
    duplicates: Literal["matrix", "mask", "none"] = "matrix"  # unstated: matrix NMS on masks, or plain mask NMS
    matrix_sigma: float = 2.0  # unstated: SOLOv2's
    nms_iou: float = 0.5  # unstated: of plain mask NMS, the usual one
    keep: float = 0.5  # unstated: least share of its score that an instance keeps (matrix NMS: IoU < about 0.6)
    mask_threshold: float = 0.5  # unstated: Panoptic-FPN's, whose post-processing §5.2 follows
    connected: bool = False  # unstated: keep only the part of a mask connected to its filter's location
    overlap: float = 0.5  # unstated: Panoptic-FPN's; drop an instance if more of its area is already covered
    fill_threshold: float | None = None  # unstated: probability at which an instance gets free pixels of its class
    stuff_threshold: float = 0.2  # unstated: least probability of a stuff class where the stuff path sees a thing
    min_component_area: int = 32  # pixels; of the comparison with connected components of the semantic output
    precision: Literal["auto", "fp32", "bf16"] = "auto"  # unstated: arithmetic of the network
    min_stuff_area: float = 2048 / (1024 * 2048)  # unstated: Panoptic-DeepLab's 2048 px, as a share; on COCO 4096


@dataclass(frozen=True)
class Config:
    """One experiment: everything but the data and the seed's consequences."""

    __pydantic_config__ = FORBID

    model: ModelConfig = field(default_factory=ModelConfig)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    input: InputConfig = field(default_factory=InputConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    inference: InferenceConfig = field(default_factory=InferenceConfig)
    baseline: BaselineConfig | None = None  # the system that takes the place of SPINet, see `with_system`
