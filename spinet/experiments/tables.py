"""§5.4 The comparisons: rows of Tables 1 and 3-5, and of choices that the paper leaves open, as changed settings.

A row lists the settings that differ from the start of a sweep, so it works with any preset and data. Rows with equal
settings are one run (see `sweep.make_plan`), also across tables.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from spinet.config import CITYSCAPES_R50, Config, ConfigError
from spinet.config.baselines import TITLES
from spinet.config.overrides import setting
from spinet.paper import TABLE_1, TABLE_3, TABLE_4, TABLE_5, LossAblation, Quality


@dataclass(frozen=True)
class Row:
    """One row: `name` is short, for folder names; `title` is for tables; `paper` has the published scores."""

    name: str
    title: str
    overrides: Mapping[str, Any] = field(default_factory=dict)
    paper: Quality | None = None
    rate: float = 1.0  # factor of the learning rate

    def changes(self, start: Config) -> dict[str, Any]:
        """Overrides of the settings at the start of a sweep."""
        rate = {"train.learning_rate": self.rate * start.train.learning_rate} if self.rate != 1 else {}
        return {**self.overrides, **rate}


@dataclass(frozen=True)
class Table:
    """Rows to compare with the first row; `measured_on` is the data set of the paper's values."""

    group: str
    title: str
    section: str
    rows: tuple[Row, ...]
    measured_on: str = ""


def _losses(name: str, row: LossAblation) -> Row:
    used = {
        "M.C.D": row.multi_class_dice,
        "L_inter": row.inter_class_contour,
        "L_intra": row.intra_class_triplet,
    }
    off = {
        "objective.multi_class_dice": False,
        "objective.inter_class_contour": 0.0,
        "objective.intra_class_triplet": 0.0,
    }
    overrides = {setting: value for (setting, value), on in zip(off.items(), used.values(), strict=True) if not on}
    return Row(name, " + ".join(part for part, on in used.items() if on) or "none", overrides, row.quality)


LOSSES = Table(
    "table3",
    "Use of the proposed losses",
    "§5.4, Table 3",
    tuple(map(_losses, ("no-losses", "dice", "dice-inter", "inter-intra", "full"), TABLE_3)),
    "Cityscapes val",
)

WITHOUT_TASKS, WITH_TASKS = LOSSES.rows[1], LOSSES.rows[4]
"""Rows that differ only in the two auxiliary tasks, as in Fig. 5."""

LEVELS = Table(
    "table4",
    "Pyramid levels that the two modules read",
    "§5.4, Table 4",
    tuple(
        Row(
            f"levels-{row.feature_levels}-{row.filter_levels}",
            f"P.F.G P {row.feature_levels}, F.S.M P {row.filter_levels}",
            {"model.feature_levels": row.feature_levels, "model.filter_levels": row.filter_levels},
            row.quality,
        )
        for row in TABLE_4
    ),
    "COCO val",
)

INTEGRATION = Table(
    "table5",
    "One Panoptic-Feature for things and stuff, or two",
    "§5.4, Table 5",
    tuple(
        Row(
            "integrated" if row.integrated else "separate",
            "integrated" if row.integrated else "separate",
            {"model.separate": not row.integrated},
            Quality(pq=row.pq),
        )
        for row in TABLE_5
    ),
    "Cityscapes val",
)

DEFORMABLE = Table(
    "deformable",
    "Deformable convolutions in the backbone, a ResNet",
    "§5.3, Table 1, last rows",
    tuple(
        Row(
            "deformable" if row.deformable else "plain",
            "deformable" if row.deformable else "plain",
            {"model.deformable": row.deformable},
            row.cityscapes,
        )
        for row in TABLE_1
        if row.method == "SPINet"
    ),
    "Cityscapes val",
)

PAPER_PARTS: dict[str, Any] = {
    name: setting(CITYSCAPES_R50, name)
    for name in (
        "model.coordinate_frame",
        "model.coordinate_unit",
        "model.coordinate_frequencies",
        "model.coordinate_skip",
        "model.detail_skip",
        "model.reach",
        "objective.sampling",
        "objective.bootstrap_anneal",
        "objective.triplet_ramp",
        "inference.connected",
        "inference.agreement",
        "inference.contested",
        "inference.fill_threshold",
    )
}
"""Settings that only SPINet has and that the paper lacks or leaves open, with the values of the paper's preset."""

SYSTEMS = Table(
    "table1",
    "The systems that the paper compares, on the same data, schedule and backbone",
    "§5.3, Table 1 in miniature",
    (
        *(Row(system, title, {"system": system}) for system, title in TITLES.items()),
        Row("spinet-paper", "SPINet, without parts beyond the paper", PAPER_PARTS),
    ),
)
"""Each system at its best learning rate of `RATES`."""

FACTORS = (0.3, 1.0, 3.0, 10.0, 30.0)

RATES = Table(
    "rates",
    "Learning rates of the systems",
    "§5.3, Table 1 in miniature",
    tuple(
        replace(row, name=f"{row.name}-rate-{factor:g}", title=f"{row.title}, rate × {factor:g}", rate=factor)
        for row in SYSTEMS.rows
        for factor in FACTORS
    ),
)
"""The search of learning rates before `SYSTEMS`; one seed is enough. It ends when the rates beside the best ran."""

WIDTHS = (8, 16, 32, 64, 128, 256)
"""Numbers of channels, from that of CondInst's mask feature to that of the Panoptic-Feature."""

CONDINST = Table(
    "condinst",
    "Absolute coordinates and path integration on CondInst, and SPINet with as few channels",
    "§3.3 and §5.4, parts of CondInst",
    (
        Row("condinst-two-paths", "CondInst", {"system": "condinst"}),
        Row("condinst-absolute", "CondInst, absolute coordinates", {"system": "condinst", "baseline.relative": False}),
        *(
            Row(
                f"condinst-integrated-{n}",
                f"CondInst, integrated on {n} channels",
                {"system": "condinst", "baseline.integrated": True, "baseline.channels": n},
            )
            for n in WIDTHS
        ),
        *(Row(f"channels-{n}", f"SPINet, {n} channels", {"model.feature_channels": n}) for n in WIDTHS),
    ),
)
"""All rows have the same learning rate."""

DEEPLAB = Table(
    "deeplab",
    "Pixels that the cross entropy of Panoptic-DeepLab averages over",
    "§5.3, Table 1 in miniature",
    (
        Row("deeplab-hardest-fifth", "the hardest fifth", {"system": "panoptic_deeplab"}, rate=3.0),
        Row("deeplab-all-pixels", "all", {"system": "panoptic_deeplab", "baseline.bootstrap": 1.0}, rate=3.0),
    ),
)
"""Both at the learning rate that was best for the first row."""

DUPLICATES = Table(
    "duplicates",
    "Removal of duplicates",
    "§5.2, unstated",
    (
        Row("duplicates-none", "none: peaks only", {"inference.duplicates": "none"}),
        Row("duplicates-mask", "mask NMS", {"inference.duplicates": "mask"}),
        Row("duplicates-matrix", "matrix NMS", {"inference.duplicates": "matrix"}),
    ),
)

ASSIGNMENT = Table(
    "assignment",
    "Assignment of locations to instances",
    "§5.2, unstated",
    (
        Row("assignment-centre", "the mask covers the centre of the cell", {"objective.assignment": "centre"}),
        Row("assignment-any", "the mask covers any pixel of the cell", {"objective.assignment": "any"}),
    ),
)

SAMPLING = Table(
    "sampling",
    "Sampling of foreground locations in training",
    "§3.2, unstated",
    (
        Row("sampling-location", "uniformly over locations", {"objective.sampling": "location"}),
        Row("sampling-instance", "equal share for each instance", {"objective.sampling": "instance"}),
    ),
)

SEMANTIC = Table(
    "semantic",
    "Classes of the stuff path",
    "§3.4, unstated",
    (
        Row("semantic-stuff", "stuff only", {"objective.semantic_classes": "stuff"}),
        Row("semantic-stuff-thing", "stuff and one class for things", {"objective.semantic_classes": "stuff+thing"}),
        Row("semantic-all", "all classes", {"objective.semantic_classes": "all"}),
    ),
)

CROSS_ENTROPY = Table(
    "cross-entropy",
    "Pixels that the cross entropy averages over",
    "§5.2, bootstrapped on Cityscapes, plain on COCO",
    (
        Row("hardest-fifth", "the hardest fifth", {"objective.bootstrap": 0.2}),
        Row("all-pixels", "all", {"objective.bootstrap": 1.0}),
    ),
)

DICE = Table(
    "dice",
    "Denominator of the dice losses",
    "Eq. 1, unstated",
    (
        Row("dice-plain", "plain", {"objective.dice_square": False}),
        Row("dice-squared", "squared", {"objective.dice_square": True}),
    ),
)

CONTOUR = Table(
    "contour",
    "Target of the contour loss",
    "§4, unstated",
    (
        Row("contour-binary", "binary", {"objective.contour_sigma": 0.0}),
        Row("contour-soft", "blurred by 1 pixel", {"objective.contour_sigma": 1.0}),
    ),
)

COORDINATES = Table(
    "coordinates",
    "Coordinates in the generator",
    "§3.3, unstated",
    tuple(
        Row(
            f"coordinates-{frame}-{waves}",
            f"spanning {span}, {f'with waves of {waves} frequencies' if waves else 'plain'}",
            {"model.coordinate_frame": frame, "model.coordinate_frequencies": waves},
        )
        for frame, span, waves in (
            ("crop", "the crop", 0),
            ("image", "the image", 0),
            ("pixels", "512 pixels", 0),
            ("pixels", "512 pixels", 6),
        )
    ),
)

FROM_SCRATCH = {"model.norm": "group", "model.pretrained": False, "model.freeze_stages": 0}

LEARNING = Table(
    "learning",
    "The recipe of the preset tiny: one part removed or added",
    "§5.2, unstated and beyond the paper",
    (
        Row("recipe", "the recipe", {"model.backbone": "tf_efficientnet_lite0"}),
        Row("scratch", "resnet10t from scratch, group norm", {"model.backbone": "resnet10t", **FROM_SCRATCH}),
        Row("scratch-18", "resnet18 from scratch, group norm", {"model.backbone": "resnet18", **FROM_SCRATCH}),
        Row("all-stages", "all stages of the backbone trained", {"model.freeze_stages": 0}),
        Row(
            "short-warmup",
            "20 iterations of warm-up, the backbone at the full rate",
            {"train.warmup": 20, "train.backbone_rate": 1.0},
        ),
        Row(
            "long-warmup",
            "100 iterations of warm-up, the backbone at the full rate",
            {"train.warmup": 100, "train.backbone_rate": 1.0},
        ),
        Row(
            "slow-backbone",
            "100 iterations of warm-up, the backbone at 0.3 of the rate",
            {"train.warmup": 100, "train.backbone_rate": 0.3},
        ),
        Row("default-taps", "PyTorch's initialisation of the deconvolution", {"model.equal_taps": False}),
        Row("gn-32", "32 groups in group norm", {"model.group_channels": None}),
        Row("no-skip", "no coordinates at the end of both paths", {"model.coordinate_skip": False}),
        Row("things-5", "λ_2 as in the paper", {"objective.things": 5.0}),
        Row("no-ramp", "λ_4 from the start", {"objective.triplet_ramp": 0.0}),
        Row("annealed", "cross entropy from all pixels to the hardest fifth", {"objective.bootstrap_anneal": 0.5}),
        Row("fc-slow", "fully connected layer at 1/24 of the rate", {"train.fc_rate": 1 / 24}),
        Row("any", "a location belongs to the smallest instance in its cell", {"objective.assignment": "any"}),
        Row("shares", "equal share of the filters for each instance", {"objective.sampling": "instance"}),
        Row("detail", "C2 added to φ", {"model.detail_skip": True}),
        Row(
            "long-waves",
            "two more waves, the longest of 4096 pixels",
            {"model.coordinate_unit": 2048.0, "model.coordinate_frequencies": 8},
        ),
    ),
)

TABLES = {
    table.group: table
    for table in (
        LOSSES,
        LEVELS,
        INTEGRATION,
        DEFORMABLE,
        SYSTEMS,
        RATES,
        CONDINST,
        DEEPLAB,
        DUPLICATES,
        ASSIGNMENT,
        SAMPLING,
        SEMANTIC,
        CROSS_ENTROPY,
        DICE,
        CONTOUR,
        COORDINATES,
        LEARNING,
    )
}


PAPER_GROUPS = {
    "tiny": ("table3", "table5"),
    "small": ("table3", "table5"),
    "cityscapes_r50": ("table3", "table5", "deformable", "condinst"),
    "coco_r50": ("table4",),
}
"""The groups that the paper reports on the data of a preset."""


def without_repetition(table: Table, start: Config) -> Table:
    """The table without SPINet's rows without parts beyond the paper, if these settings have no such parts."""
    if any(setting(start, name) != value for name, value in PAPER_PARTS.items()):
        return table
    return replace(table, rows=tuple(row for row in table.rows if not PAPER_PARTS.items() <= row.overrides.items()))


def find_tables(groups: tuple[str, ...]) -> list[Table]:
    """The tables of some groups, in the order of `TABLES`.

    Raises:
        ConfigError: a group does not exist, or no group is named.
    """
    if unknown := [group for group in groups if group not in TABLES]:
        raise ConfigError(f"no group of experiments {unknown[0]!r}; there are {', '.join(TABLES)}")
    if not groups:
        raise ConfigError(f"no group of experiments is named; there are {', '.join(TABLES)}")
    return [table for group, table in TABLES.items() if group in groups]


def choose_rows(tables: list[Table], names: Sequence[str]) -> list[Table]:
    """The tables with only the rows of these names, or with all rows if no name is given.

    Raises:
        ConfigError: a row does not exist.
    """
    known = [row.name for table in tables for row in table.rows]
    if unknown := [name for name in names if name not in known]:
        raise ConfigError(
            f"no row {unknown[0]!r} in {', '.join(t.group for t in tables)}; there are {', '.join(known)}"
        )
    if not names:
        return tables
    return [replace(table, rows=tuple(row for row in table.rows if row.name in names)) for table in tables]


_SHORT = {"input.workers": 0, "train.checkpoint_every": 100}

CAMPAIGNS: dict[str, dict[str, Any]] = {
    "synthcity": {  # scenes of 256 × 512 pixels
        **_SHORT,
        "input.crop": [192, 384],
        "input.scale": [0.5625, 0.9375],
        "input.test_scale": 0.75,
        "train.iterations": 800,
        "train.warmup": 100,
        "train.backbone_rate": 0.3,
        "inference.contested": "score",  # the merge of the paper's presets
        "inference.fill_threshold": None,
    },
    "dsb2018": {  # a third of the pixels of the run in the README, with the settings that helped there
        **_SHORT,
        "input.crop": [192, 192],
        "input.scale": [0.6, 1.0],
        "input.test_scale": 0.75,
        "objective.samples_per_image": 96,
        "objective.sampling": "instance",
        "model.reach": 80,
        "train.iterations": 300,
        "train.warmup": 20,
        "inference.top": 1500,
        "inference.connected": True,
    },
    "coco_street": {  # 104 photos; a third of the iterations of the runs in docs/results.md
        **_SHORT,
        "input.crop": [256, 384],
        "input.scale": [0.6, 1.4],
        "input.test_scale": 1.0,
        "input.photo": 0.5,
        "train.iterations": 300,
        "train.warmup": 20,
        "inference.peak": 5,
        "inference.top": 300,
    },
}
"""Overrides of the preset tiny for campaigns on small data: lower resolution, a run takes minutes on one core."""


def find_campaign(name: str) -> dict[str, Any]:
    """The overrides of a campaign; raises `ConfigError` if it does not exist."""
    if name not in CAMPAIGNS:
        raise ConfigError(f"no campaign {name!r}; there are {', '.join(CAMPAIGNS)}")
    return CAMPAIGNS[name]
