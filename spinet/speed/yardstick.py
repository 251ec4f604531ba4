"""§5.3 Reference for times: the rates of one convolution and of memory, and the bytes that a network moves."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.ops import DeformConv2d

from spinet.machine import synchronise

CHANNELS, STRIDE = 256, 8
"""Channels and stride of the convolution, as in the heads and the Panoptic-Feature generator (§3.2, §3.3)."""

RUNS = 50
"""Runs per measurement on CUDA, where a single run is too short to time."""

LAYERS = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear, DeformConv2d)


class Yardstick:
    """A 256→256 3×3 convolution at an eighth of the image's size, and a copy of a map at a quarter of it.

    `take` times each once. The convolution uses the faster of the two memory formats, which are compared first. On CUDA
    both process enough images to exceed the cache, and the device's own clock times them.
    """

    def __init__(self, size: tuple[int, int], *, precision: torch.dtype, device: torch.device):
        self.device = device
        height, width = (-(-side // STRIDE) for side in size)
        nbytes = CHANNELS * height * width * precision.itemsize
        images = math.ceil(4 * _cache(device) / nbytes) if device.type == "cuda" else 1
        self.macs = CHANNELS**2 * 3**2 * height * width * images
        plain = nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1, device=device, dtype=precision).requires_grad_(False)
        x = torch.randn(images, CHANNELS, height, width, device=device).to(precision)
        tried = []
        for order in (torch.contiguous_format, torch.channels_last):
            convolution, ordered = deepcopy(plain).to(memory_format=order), x.to(memory_format=order)
            seconds = [self._seconds(lambda c=convolution, y=ordered: c(y)) for _ in range(4)]
            tried.append((min(seconds[1:]), convolution, ordered))
        _, self.convolution, self.x = min(tried, key=lambda one: one[0])
        self.map = torch.randn(images, CHANNELS, 2 * height, 2 * width, device=device)
        self.taken: list[tuple[float, float]] = []

    def take(self) -> None:
        self.taken.append((self._seconds(lambda: self.convolution(self.x)), self._seconds(lambda: self.map.clone())))

    def rates(self) -> dict[str, float]:
        """Medians: multiply-accumulates per second, and bytes read and written per second."""
        convolution, copy = (median(seconds) for seconds in zip(*self.taken, strict=True))
        return {"macs_per_s": self.macs / convolution, "bytes_per_s": 2 * self.map.nbytes / copy}

    def _seconds(self, run: Callable[[], Any]) -> float:
        if self.device.type == "cuda":
            first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            first.record()
            for _ in range(RUNS):
                run()
            last.record()
            last.synchronize()
            return first.elapsed_time(last) / 1e3 / RUNS
        synchronise(self.device)
        start = perf_counter()
        run()
        synchronise(self.device)
        return perf_counter() - start


def _cache(device: torch.device) -> int:
    """Bytes of a GPU's L2 cache."""
    return torch.cuda.get_device_properties(device).L2_cache_size


@contextmanager
def counting_moves(network: nn.Module) -> Iterator[list[int]]:
    """Collects how many values each layer with weights reads and writes: inputs, weights and outputs, at each use.

    Other operations, such as norms, do not count: they could be fused into these layers.
    """
    moves: list[int] = []

    def add(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
        tensors = (*(x for x in inputs if isinstance(x, Tensor)), *module.parameters(), output)
        moves.append(sum(tensor.numel() for tensor in tensors))

    hooks = [module.register_forward_hook(add) for module in network.modules() if isinstance(module, LAYERS)]
    yield moves
    for hook in hooks:
        hook.remove()


def peak_memory(device: torch.device, run: Callable[[], Any]) -> int | None:
    """Largest growth of the memory in use during `run`, in bytes.

    Counts the allocator's memory on CUDA and the process's resident memory on Linux; None elsewhere.
    """
    if device.type == "cuda":
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        run()
        return torch.cuda.max_memory_allocated(device) - before
    process = Path("/proc/self")
    try:
        ctypes.CDLL(None).malloc_trim(0)  # return freed memory, or its reuse would not count
        (process / "clear_refs").write_text("5")  # reset the high-water mark
        before = _resident(process, "VmRSS")
        run()
        return _resident(process, "VmHWM") - before
    except (OSError, AttributeError):
        return None


def _resident(process: Path, name: str) -> int:
    line = next(line for line in (process / "status").read_text().splitlines() if line.startswith(name))
    return 1024 * int(line.split()[1])
