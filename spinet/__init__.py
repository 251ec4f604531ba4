"""SPINet: Single-shot Path Integrated Panoptic Segmentation, a reference re-implementation."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from spinet.config import Config
    from spinet.inference.predict import Prediction, predict
    from spinet.model.spinet import SPINet
    from spinet.speed.optimize import optimize_for_inference
    from spinet.system import Model
    from spinet.training.loop import train
    from spinet.weights import load_model

__all__ = ["Config", "Model", "Prediction", "SPINet", "load_model", "optimize_for_inference", "predict", "train"]

_HOMES = {
    "Config": "config",
    "Model": "system",
    "Prediction": "inference.predict",
    "SPINet": "model.spinet",
    "load_model": "weights",
    "optimize_for_inference": "speed.optimize",
    "predict": "inference.predict",
    "train": "training.loop",
}


def __getattr__(name: str) -> Any:
    """Imports a public name at its first use, so that `spinet --help` does not load PyTorch."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"spinet.{_HOMES[name]}"), name)
