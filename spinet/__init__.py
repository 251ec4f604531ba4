"""SPINet: Single-shot Path Integrated Panoptic Segmentation, a reference re-implementation."""

from typing import TYPE_CHECKING, Any

from spinet.config import Config
from spinet.inference.predict import Prediction, predict
from spinet.model.spinet import SPINet
from spinet.speed.optimize import optimize_for_inference
from spinet.system import Model
from spinet.weights import load_model

if TYPE_CHECKING:
    from spinet.training.loop import train

__all__ = ["Config", "Model", "Prediction", "SPINet", "load_model", "optimize_for_inference", "predict", "train"]


def __getattr__(name: str) -> Any:
    """`train` is imported when it is asked for: most programs only predict."""
    if name != "train":
        raise AttributeError(f"module 'spinet' has no attribute {name!r}")
    from spinet.training.loop import train

    return train
