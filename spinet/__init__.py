"""SPINet: Single-shot Path Integrated Panoptic Segmentation, a reference re-implementation."""

from spinet.config import Config
from spinet.inference.predict import Prediction, predict
from spinet.model.spinet import SPINet
from spinet.speed.optimize import optimize_for_inference
from spinet.system import Model
from spinet.weights import load_model

__all__ = ["Config", "Model", "Prediction", "SPINet", "load_model", "optimize_for_inference", "predict"]
