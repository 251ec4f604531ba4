"""The configuration of an experiment: fields with their sources, presets, and checks."""

from spinet.config.presets import (
    CITYSCAPES,
    CITYSCAPES_R50,
    COCO,
    COCO_R50,
    PRESETS,
    SMALL,
    TINY,
    DataFacts,
    Preset,
    PresetName,
    with_system,
)
from spinet.config.schema import (
    Config,
    ConfigError,
    InferenceConfig,
    InputConfig,
    ModelConfig,
    ObjectiveConfig,
    Precision,
    SemanticClasses,
    TrainConfig,
)
from spinet.config.stored import checked, from_dict, to_dict

__all__ = [
    "CITYSCAPES",
    "CITYSCAPES_R50",
    "COCO",
    "COCO_R50",
    "PRESETS",
    "SMALL",
    "TINY",
    "Config",
    "ConfigError",
    "DataFacts",
    "InferenceConfig",
    "InputConfig",
    "ModelConfig",
    "ObjectiveConfig",
    "Precision",
    "Preset",
    "PresetName",
    "SemanticClasses",
    "TrainConfig",
    "checked",
    "from_dict",
    "to_dict",
    "with_system",
]
