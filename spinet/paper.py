"""Tables 1-5 and §5: every published number, each with its place in the paper. None is an empty cell."""

from __future__ import annotations

from dataclasses import dataclass

URL = "https://arxiv.org/abs/2012.01632"


@dataclass(frozen=True)
class Quality:
    """Scores on one validation set in percent: PQ of all classes, of things, of stuff; mask AP; mIoU."""

    pq: float | None = None
    pq_things: float | None = None
    pq_stuff: float | None = None
    ap: float | None = None
    miou: float | None = None


@dataclass(frozen=True)
class Comparison:
    """A row of Table 1: systems on ResNet-50 without test-time augmentation, unless `note` says otherwise."""

    place: str
    method: str
    coco: Quality
    cityscapes: Quality
    proposals: bool = False  # has a region proposal network
    deformable: bool = False
    atrous: bool = False
    note: str = ""


@dataclass(frozen=True)
class Speed:
    """A row of Table 2: milliseconds per image on a TITAN Xp, Cityscapes val; millions of parameters."""

    place: str
    method: str
    pq: float
    params: float
    total: int
    network: int
    post: int


@dataclass(frozen=True)
class LossAblation:
    """A row of Table 3: Cityscapes val; parameters in training, in millions."""

    place: str
    multi_class_dice: bool
    inter_class_contour: bool
    intra_class_triplet: bool
    quality: Quality
    params: float


@dataclass(frozen=True)
class LevelAblation:
    """A row of Table 4: COCO val; pyramid levels that each module reads, as `ModelConfig` names them."""

    place: str
    feature_levels: str  # Panoptic-Feature generator
    filter_levels: str  # filter sampling module
    quality: Quality


@dataclass(frozen=True)
class IntegrationAblation:
    """A row of Table 5: one generator for things and stuff, or two.

    Network time is in milliseconds, parameters in millions, "FLOPs" in 10^12. The FLOPs only fit as
    multiply-accumulates of a 1024×2048 image.
    """

    place: str
    integrated: bool
    pq: float
    network: int
    params: float
    flops: float


@dataclass(frozen=True)
class Training:
    """§5.2: a schedule and the coefficients of Eq. 7 (λ_0 … λ_4)."""

    place: str
    gpus: int
    images_per_gpu: int
    iterations: int
    learning_rate: float
    decay: float
    milestones: tuple[int, int]
    coefficients: tuple[float, float, float, float, float]
    bootstrap: float  # share of the hardest pixels in the cross entropy; 1 means all pixels


@dataclass(frozen=True)
class Dataset:
    """§5.1: numbers of images and classes."""

    place: str
    train: int
    val: int
    test: int | None
    things: int
    stuff: int


COCO = Dataset("§5.1", train=118_000, val=5_000, test=20_000, things=80, stuff=53)
CITYSCAPES = Dataset("§5.1", train=2975, val=500, test=None, things=8, stuff=11)

TRAINING_CITYSCAPES = Training("§5.2", 8, 4, 95_000, 0.01, 0.1, (80_000, 90_000), (1, 1, 5, 20, 1), 0.2)
TRAINING_COCO = Training("§5.2", 8, 2, 270_000, 0.01, 0.1, (180_000, 240_000), (1, 0.5, 3, 0, 1), 1.0)
THRESHOLD = 0.45  # §5.2: confidence at which a dynamic filter is sampled

HEAD_CONVOLUTIONS = 4  # §3.2: of the class head, and of the filter head
FEATURE_CHANNELS = 256  # §3.3: D_φ
GENERATOR_STRIDE = 8  # §3.3: inside the Panoptic-Feature generator
FEATURE_STRIDE = 4  # §3.4, Fig. 3: of the Panoptic-Feature
CONTOUR_CHANNELS = 16  # §4: outputs of the contour head, a 1×1 convolution

PQ_CITYSCAPES = 63.5  # §1, with deformable convolutions
PQ_COCO = 43.0  # §1, with deformable convolutions

_NONE = Quality()

TABLE_1 = (
    Comparison(
        "Table 1, row 1",
        "Panoptic-FPN",
        Quality(39.0, 45.9, 28.7, 33.3, 41.0),
        Quality(57.7, 51.6, 62.2, 32.0, 75.0),
        proposals=True,
    ),
    Comparison(
        "Table 1, row 2",
        "OCFusion",
        Quality(42.5, 49.1, 32.5),
        Quality(59.3, 53.5, 63.6),
        proposals=True,
        deformable=True,
    ),
    Comparison(
        "Table 1, row 3",
        "UPSNet",
        Quality(42.5, 48.6, 33.4, 34.3, 54.3),
        Quality(59.3, 54.6, 62.7, 33.3, 75.2),
        proposals=True,
        deformable=True,
    ),
    Comparison(
        "Table 1, row 4",
        "Seamless",
        _NONE,
        Quality(60.3, 56.1, 63.3, 33.6, 77.5),
        proposals=True,
        atrous=True,
    ),
    Comparison(
        "Table 1, row 5",
        "Li et al.",
        Quality(43.4, 48.6, 35.5, 36.4, 53.7),
        Quality(61.4, 54.7, 66.3, 33.7, 79.5),
        proposals=True,
        deformable=True,
    ),
    Comparison("Table 1, row 6", "DeeperLab", Quality(33.8), Quality(56.6), atrous=True, note="Xception-71"),
    Comparison(
        "Table 1, row 7",
        "SSAP",
        Quality(36.5),
        Quality(58.4, 50.6, ap=34.4),
        note="ResNet-101, horizontal flip and several scales at test time",
    ),
    Comparison("Table 1, row 8", "Hou et al.", Quality(37.1, 41.0, 31.3), Quality(58.8, 52.1, 63.7, 29.8, 77.0)),
    Comparison(
        "Table 1, row 9",
        "Panoptic-DeepLab",
        Quality(35.5, 37.8, 32.0, 19.7),
        Quality(60.3, 50.9, 67.1, 32.1, 78.7),
        atrous=True,
    ),
    Comparison(
        "Table 1, row 10",
        "Axial-DeepLab",
        Quality(43.2, 48.1, 35.9),
        Quality(63.1, ap=35.6, miou=80.3),
        note="Axial-DeepLab-M",
    ),
    Comparison(
        "Table 1, row 11",
        "SPINet",
        Quality(42.2, 49.3, 31.4, 33.2, 43.2),
        Quality(63.0, 57.0, 67.3, 35.3, 80.0),
    ),
    Comparison(
        "Table 1, row 12",
        "SPINet",
        Quality(43.0, 49.3, 33.5, 34.0, 43.9),
        Quality(63.5, 57.4, 67.9, 36.3, 81.3),
        deformable=True,
    ),
)

TABLE_2 = (
    Speed("Table 2, row 1", "UPSNet", 59.3, 44.5, total=501, network=191, post=310),
    Speed("Table 2, row 2", "Panoptic-DeepLab", 60.3, 59.8, total=499, network=335, post=164),
    Speed("Table 2, row 3", "SPINet", 63.0, 42.2, total=201, network=171, post=30),
)

TABLE_3 = (  # multi-class dice, inter-class contour, intra-class triplet
    LossAblation("Table 3, row 1", False, False, False, Quality(61.8, 54.8, 66.8), 42.2),
    LossAblation("Table 3, row 2", True, False, False, Quality(62.3, 56.0, 66.8), 42.2),
    LossAblation("Table 3, row 3", True, True, False, Quality(62.7, 56.2, 67.4), 42.3),
    LossAblation("Table 3, row 4", False, True, True, Quality(62.3, 55.9, 66.9), 42.3),
    LossAblation("Table 3, row 5", True, True, True, Quality(63.0, 57.0, 67.3), 42.3),
)

TABLE_4 = (
    LevelAblation("Table 4, row 1", "3-7", "3-7", Quality(40.5, 48.3, 28.6)),
    LevelAblation("Table 4, row 2", "2-6", "3-7", Quality(40.5, 48.6, 28.3)),
    LevelAblation("Table 4, row 3", "2-6", "2-6", Quality(42.2, 49.3, 31.4)),
)

TABLE_5 = (
    IntegrationAblation("Table 5, row 1", False, 62.3, network=202, params=46.6, flops=0.96),
    IntegrationAblation("Table 5, row 2", True, 63.0, network=171, params=42.2, flops=0.81),
)
