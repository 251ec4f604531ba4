"""§5.2 Inference: the panoptic map of an image. `InferenceConfig` has every rule that the paper does not state."""

from __future__ import annotations

from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from spinet.config import InferenceConfig
from spinet.data.readers import as_image
from spinet.data.transforms import EvalTransform
from spinet.machine import arithmetic, synchronise
from spinet.system import Model, NetworkOutput, Panoptic


@dataclass
class Prediction(Panoptic):
    """The result of `predict` for an image, and its times."""

    network_seconds: float
    post_seconds: float


def predict(model: Model, image: UInt8[np.ndarray, "H W 3"] | Any, *, instances: bool = False) -> Prediction:
    """The panoptic segmentation of an RGB image of any size, at its own resolution: `run_network`, then `postprocess`.

    Args:
        model: from `load_model`.
        image: uint8 RGB; also grey [H, W], a Pillow image, or the path of an image file, see `as_image`.
        instances: also return the instances above the lower threshold of AP, with their masks.

    Raises:
        ValueError: the image is none of these; the message says what it is.
    """
    return postprocess(model, run_network(model, image), instances=instances)


@torch.inference_mode()
def run_network(model: Model, image: UInt8[np.ndarray, "H W 3"] | Any) -> NetworkOutput:
    """Runs the network once, on an RGB image of any size.

    The result does not depend on thresholds or merge rules, so `postprocess` can be called on it several times.

    Raises:
        ValueError: `as_image` does not accept the image.
    """
    image = as_image(image)
    start = perf_counter()
    scaled = _test_transform(model).scaled(torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1))
    with arithmetic(model.config.inference.precision, model.device):
        features = model.network(_upload(scaled, model.device)[None])
    synchronise(model.device)
    return NetworkOutput(
        features=features,
        size=(image.shape[0], image.shape[1]),
        network_size=(scaled.shape[1], scaled.shape[2]),
        seconds=perf_counter() - start,
    )


@torch.inference_mode()
def postprocess(
    model: Model, output: NetworkOutput, config: InferenceConfig | None = None, *, instances: bool = False
) -> Prediction:
    """All of `predict` except the network.

    Args:
        model: the one that made `output`.
        config: rules to use instead of the model's own, such as `replace(model.config.inference, threshold=0.3)`.
        instances: as for `predict`.
    """
    start = perf_counter()
    found = model.postprocess(output, config or model.config.inference, instances=instances)
    return Prediction(**vars(found), network_seconds=output.seconds, post_seconds=perf_counter() - start)


def _test_transform(model: Model) -> EvalTransform:
    source = model.config.input
    return EvalTransform(scale=source.test_scale, scale_unit=source.scale_unit, max_long_side=source.max_long_side)


def _upload(image: UInt8[Tensor, "3 H W"], device: torch.device) -> UInt8[Tensor, "3 H W"]:
    """Copies the image to the device; to CUDA as it is stored, channels last, and asynchronously."""
    if device.type != "cuda":
        return image.contiguous().to(device)
    return image.pin_memory().to(device, non_blocking=True)
