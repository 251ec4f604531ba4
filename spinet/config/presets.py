"""Presets: configurations to start from, and facts about their data."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from spinet.config.baselines import BASELINES
from spinet.config.schema import (
    Config,
    ConfigError,
    InferenceConfig,
    InputConfig,
    ModelConfig,
    ObjectiveConfig,
    TrainConfig,
)

PresetName = Literal["tiny", "small", "cityscapes_r50", "coco_r50"]


@dataclass(frozen=True)
class DataFacts:
    """Facts about the data of a preset."""

    name: str
    size: tuple[int, int]  # height, width of a full image, pixels
    num_classes: tuple[int, int]  # thing and stuff classes (§5.1)


CITYSCAPES = DataFacts("Cityscapes", size=(1024, 2048), num_classes=(8, 11))
COCO = DataFacts("COCO", size=(800, 1333), num_classes=(80, 53))


@dataclass(frozen=True)
class Preset:
    """A configuration to start from, and facts about its data."""

    config: Config
    data: DataFacts

    def with_system(self, system: str) -> Config:
        """The configuration for another system, see `with_system`."""
        return with_system(self.config, system, self.data)


CITYSCAPES_R50 = Config()

COCO_R50 = Config(
    model=ModelConfig(filter_levels="2-6", feature_levels="2-6"),  # §3.1
    objective=ObjectiveConfig(
        stuff=0.5,
        things=3.0,
        inter_class_contour=0.0,  # §5.2
        bootstrap=1.0,  # §5.2: "general cross entropy"
        semantic_classes="stuff+thing",
        samples_per_image=250,  # 500 for 2 images on a device
    ),
    input=InputConfig(scale=(640, 800), max_long_side=1333, crop=None, colour_jitter=0.0, test_scale=800),
    train=TrainConfig(
        iterations=270_000,
        batch_size=16,
        images_per_device=2,
        reference_batch=16,
        milestones=(180 / 270, 240 / 270),  # §5.2
    ),
    inference=InferenceConfig(min_stuff_area=4096 / (640 * 480)),
)

SMALL = Config(
    model=ModelConfig(
        backbone="tf_efficientnet_lite0",  # its ImageNet weights are a package; no download from a hub
        freeze_stages=3,
        group_channels=8,
        fpn_channels=128,
        filter_channels=128,
        feature_channels=128,
        coordinate_frame="pixels",  # with sin and cos: fastest learning for many similar objects
        coordinate_frequencies=6,
        coordinate_skip=True,
    ),
    objective=ObjectiveConfig(things=2.0, triplet_ramp=1 / 3),
    input=InputConfig(scale=(0.75, 1.5), scale_unit="factor", crop=(384, 768), workers=8),
    train=TrainConfig(
        iterations=6000,
        batch_size=16,
        images_per_device=16,
        reference_batch=16,
        learning_rate=1e-3,
        schedule="poly",
        warmup=200,
        optimizer="adamw",
        weight_decay=0.05,
        clip_norm=10.0,
        checkpoint_every=500,
        evaluate_every=2000,
    ),
    inference=InferenceConfig(contested="mask", fill_threshold=0.1),
)

TINY = replace(
    SMALL,
    model=replace(SMALL.model, fpn_channels=64, filter_channels=64, feature_channels=64, head_convs=2),
    objective=replace(SMALL.objective, semantic_stride=4, samples_per_image=64),
    input=InputConfig(scale=(0.75, 1.25), scale_unit="factor", crop=(256, 512), workers=1),
    train=replace(
        SMALL.train,
        iterations=1600,
        batch_size=4,
        images_per_device=4,
        reference_batch=4,
        warmup=50,
        checkpoint_every=200,
        evaluate_every=0,
    ),
)

PRESETS: dict[str, Preset] = {
    "tiny": Preset(TINY, DataFacts("SynthCity", size=(256, 512), num_classes=(8, 11))),
    "small": Preset(SMALL, DataFacts("SynthCity", size=(512, 1024), num_classes=(8, 11))),
    "cityscapes_r50": Preset(CITYSCAPES_R50, CITYSCAPES),
    "coco_r50": Preset(COCO_R50, COCO),
}


def with_system(config: Config, system: str, data: DataFacts) -> Config:
    """Configures another system: same data, schedule and width, but that system's own losses and rules.

    A baseline reads these shared fields: of `model`, the backbone fields, `fpn_channels` and `head_convs`; of
    `objective`, `semantic_classes`; of `inference`, `ap_threshold`, `top`, `mask_threshold`, `overlap` and
    `min_stuff_area`. For crops smaller than the authors' Cityscapes crops, `for_crops` scales size-dependent settings.

    Args:
        config: of a preset, possibly modified.
        data: of that preset; some systems have other settings on COCO than on Cityscapes.

    Raises:
        ConfigError: the system does not exist.
    """
    if system == "spinet":
        return replace(config, baseline=None)
    if system not in BASELINES:
        raise ConfigError(f"no system {system!r}; there are spinet, {', '.join(BASELINES)}")
    baseline = BASELINES[system]()
    if data == COCO:
        baseline = replace(baseline, **baseline.COCO)
    if config.input.crop:
        baseline = baseline.for_crops(min(1.0, config.input.crop[0] / baseline.CROP_HEIGHT))
    if config.model.backbone == CITYSCAPES_R50.model.backbone:
        config = replace(config, model=replace(config.model, backbone=baseline.RESNET_50))
    if baseline.EVERY_CLASS:
        config = replace(config, objective=replace(config.objective, semantic_classes="all"))
    return replace(config, baseline=baseline)
