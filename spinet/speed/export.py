"""§3 The network as an ONNX file, for other engines. Input: image. Outputs: class logits, filter features and φ."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from spinet.files import atomic_write
from spinet.model.spinet import SPINet
from spinet.speed.batch_norm import fold_batch_norm
from spinet.system import Model
from spinet.weights import freeze

TOLERANCE = 1e-3
"""Largest allowed deviation of an output, as a share of its largest value: float32 sums in another order."""


class Network(nn.Module):
    """SPINet's `forward` with its outputs in one tuple."""

    def __init__(self, network: SPINet):
        super().__init__()
        self.network = network

    def forward(self, image: UInt8[Tensor, "1 3 H W"]) -> tuple[Float[Tensor, "..."], ...]:
        features = self.network(image)
        return (*features.class_logits, *features.filter_features, features.phi)


def export(model: Model, path: str | Path, *, size: tuple[int, int], seed: int = 0) -> dict[str, float]:
    """Writes the network for images of one size, atomically, after a check that onnxruntime and PyTorch agree.

    The input is `image`, uint8 [1, 3, H, W], RGB. The outputs, float32, are `classes_0` … and `filters_0` …, one for
    each level of the filter sampling module, and `phi`. Later steps depend on the number of things and are not
    exported: see `spinet.inference.postprocess`.

    Args:
        model: a SPINet; batch norm is folded.
        size: H, W, in pixels.
        seed: seed of the noise image for the comparison.

    Returns:
        The largest deviation of each output, as a share of its largest value.

    Raises:
        ValueError: the model is another system.
        RuntimeError: packages of `pip install 'spinet[export]'` are missing, or the engines disagree.
    """
    if not isinstance(model.network, SPINet):
        raise ValueError(f"only SPINet is exported, not {type(model.network).__name__}")
    try:
        import onnxruntime
        import onnxscript  # noqa: F401  needed by torch.onnx
    except ImportError as error:
        raise RuntimeError(f"{error.name} is missing: pip install 'spinet[export]'") from None
    folded = deepcopy(model.network).cpu()
    freeze(folded)
    fold_batch_norm(folded)
    network = Network(folded).eval()
    levels = range(len(model.network.strides))
    names = [*(f"classes_{level}" for level in levels), *(f"filters_{level}" for level in levels), "phi"]
    noise = np.random.default_rng(seed).integers(0, 256, (1, 3, *size), dtype=np.uint8)
    image = torch.from_numpy(noise)
    program: Any = torch.onnx.export(
        network, (image,), input_names=["image"], output_names=names, dynamo=True, verbose=False
    )
    content = program.model_proto.SerializeToString()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    with torch.inference_mode():
        expected = network(image)
    deviations = {
        name: float(np.abs(ours.numpy() - theirs).max() / np.abs(ours.numpy()).max())
        for name, ours, theirs in zip(names, expected, session.run(None, {"image": noise}), strict=True)
    }
    worst = max(deviations, key=lambda name: deviations[name])
    if deviations[worst] > TOLERANCE:
        raise RuntimeError(f"{path}: not written: onnxruntime's {worst} deviates by {deviations[worst]:.1e}")
    atomic_write(path, content)
    return deviations
