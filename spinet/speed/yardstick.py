"""§5.3 What a time is held against: the rate of one convolution and of the memory, the bytes that a network moves."""

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
"""Of the convolution: those of the heads and of the Panoptic-Feature generator (§3.2, §3.3)."""

RUNS = 50
"""That are timed as one on CUDA, where a single one takes less than a clock of the host can tell."""

LAYERS = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear, DeformConv2d)


class Yardstick:
    """A 256→256 3×3 convolution at an eighth of the picture's size, and a copy of a map at a quarter of it.

    `take` times both once; the convolution in the faster of the two orders in memory, after a look at both. On CUDA
    both are of as many pictures as no cache holds, and are timed by the device's own clock.
    """

    def __init__(self, size: tuple[int, int], *, precision: torch.dtype, device: torch.device):
        self.device = device
        height, width = (-(-side // STRIDE) for side in size)
        picture = CHANNELS * height * width * precision.itemsize
        images = math.ceil(4 * _cache(device) / picture) if device.type == "cuda" else 1
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
        """Medians: multiply-accumulates a second, and bytes read and written a second."""
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
    """Bytes of a GPU's last cache."""
    return torch.cuda.get_device_properties(device).L2_cache_size


@contextmanager
def counting_moves(network: nn.Module) -> Iterator[list[int]]:
    """Collects the values that each layer that multiplies reads and writes: its inputs, weights and outputs, once each
    time that it is used. All else, such as norms, could in principle be done on the way."""
    moves: list[int] = []

    def add(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
        tensors = (*(x for x in inputs if isinstance(x, Tensor)), *module.parameters(), output)
        moves.append(sum(tensor.numel() for tensor in tensors))

    hooks = [module.register_forward_hook(add) for module in network.modules() if isinstance(module, LAYERS)]
    yield moves
    for hook in hooks:
        hook.remove()


def peak_memory(device: torch.device, run: Callable[[], Any]) -> int | None:
    """Bytes by which memory in use grows in `run`, at most: the allocator's on CUDA, the process's resident ones on
    Linux, None elsewhere."""
    if device.type == "cuda":
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        run()
        return torch.cuda.max_memory_allocated(device) - before
    process = Path("/proc/self")
    try:
        ctypes.CDLL(None).malloc_trim(0)  # what was freed before shall not be used again unseen
        (process / "clear_refs").write_text("5")  # the high-water mark starts anew
        before = _resident(process, "VmRSS")
        run()
        return _resident(process, "VmHWM") - before
    except (OSError, AttributeError):
        return None


def _resident(process: Path, name: str) -> int:
    line = next(line for line in (process / "status").read_text().splitlines() if line.startswith(name))
    return 1024 * int(line.split()[1])
