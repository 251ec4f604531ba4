"""§5.2 Inference: an image in, a panoptic map out. Every rule that the paper leaves open is in `InferenceConfig`."""

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
    """What `predict` says about an image, and how long it took."""

    network_seconds: float
    post_seconds: float


def predict(model: Model, image: UInt8[np.ndarray, "H W 3"] | Any, *, instances: bool = False) -> Prediction:
    """The panoptic segmentation of an RGB image of any size, at its own resolution: `run_network`, then `postprocess`.

    Args:
        model: from `load_model`.
        image: uint8 RGB; also grey [H, W], a Pillow image, or the path of an image file, see `as_image`.
        instances: also give the instances down to the lower threshold that AP is computed with, with their masks.

    Raises:
        ValueError: the image is none of these; the message says what it is.
    """
    return postprocess(model, run_network(model, image), instances=instances)


@torch.inference_mode()
def run_network(model: Model, image: UInt8[np.ndarray, "H W 3"] | Any) -> NetworkOutput:
    """Runs the network once, on an RGB image of any size.

    Nothing in the result depends on thresholds or merge rules, so `postprocess` may be called on it again and again.

    Raises:
        ValueError: the image is none that `as_image` takes.
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
    """All of `predict` but the network.

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
    """The image on the device: to CUDA its bytes go as they lie, channels last, and nobody waits for them."""
    if device.type != "cuda":
        return image.contiguous().to(device)
    return image.pin_memory().to(device, non_blocking=True)
