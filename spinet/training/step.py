"""§5.2 One step of training: what the loader's workers prepare, what the device computes, what is read back when."""

from __future__ import annotations

import math
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from spinet.config import TrainConfig
from spinet.data.segments import Batch, map_tensors
from spinet.system import Countable, TargetBuilder


def learning_rate(iteration: int, config: TrainConfig) -> float:
    """Rate of an iteration: scaled linearly with the batch, warmed up linearly from a thousandth, then as scheduled."""
    rate = config.learning_rate * config.batch_size / config.reference_batch
    if iteration < config.warmup:
        rate *= 0.001 + 0.999 * iteration / config.warmup
    progress = iteration / config.iterations
    if config.schedule == "step":
        return rate * 0.1 ** sum(progress >= milestone for milestone in config.milestones)
    if config.schedule == "poly":
        return rate * (1 - progress) ** 0.9
    return rate * 0.5 * (1 + math.cos(math.pi * progress))


def make_optimizer(module: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """SGD or AdamW; vectors (norms, biases) are not decayed, and some parts have a rate of their own.

    A group's `factor` multiplies the rate of every iteration. On CUDA all parameters are updated by a few kernels,
    which know the number of a step without asking the host; the module has to be there already.
    """
    trained: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            decay = config.weight_decay if parameter.ndim > 1 else 0.0
            factor = config.backbone_rate if ".backbone." in name else 1.0
            factor *= config.fc_rate if ".filter_sampling.fc." in name else 1.0
            trained.setdefault((decay, factor), []).append(parameter)
    groups = [
        {"params": parameters, "weight_decay": decay, "factor": factor}
        for (decay, factor), parameters in trained.items()
    ]
    fused = all(parameter.is_cuda for group in trained.values() for parameter in group) or None
    if config.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=config.learning_rate, momentum=config.momentum, fused=fused)
    return torch.optim.AdamW(groups, lr=config.learning_rate, fused=fused)


@dataclass
class Part:
    """What a device takes at once: images with their targets, and how much there is in them to learn from."""

    batch: Batch  # its segment maps, of which the targets are made, have stayed behind
    targets: Countable
    counts: tuple[float, ...]

    def to(self, device: torch.device) -> Part:
        """The part on its device; from page-locked memory nobody waits for it."""
        return map_tensors(self, lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> Part:
        """The part in page-locked memory; a `DataLoader` calls this."""
        return map_tensors(self, torch.Tensor.pin_memory)


@dataclass(frozen=True)
class Prepare:
    """Makes parts of batches, in the loader's workers: a device would take hundreds of small operations for it."""

    build: TargetBuilder

    def __call__(self, batch: Batch) -> Part:
        targets = self.build(batch.segment_maps, batch.labels, batch.crowd, batch.seeds, batch.smallest_maps)
        light = replace(
            batch, segment_maps=batch.segment_maps[:, :0, :0].clone(), labels=[], crowd=[], smallest_maps=None
        )
        return Part(light, targets, targets.counts())


class PendingLosses:
    """Losses and the gradient's norm of a step, on their way to the host while the device goes on."""

    def __init__(self, losses: dict[str, Tensor], norm: Tensor):
        self.names = [*losses, "gradient_norm"]
        values = torch.stack([*losses.values(), norm.to(losses["total"].dtype)])
        self.values = values.to("cpu", non_blocking=True)
        self.arrived = torch.cuda.Event() if values.is_cuda else None
        if self.arrived:
            self.arrived.record()

    def read(self) -> dict[str, float]:
        """Waits for them, and for nothing that was launched after them."""
        if self.arrived:
            self.arrived.synchronize()
        return dict(zip(self.names, self.values.tolist(), strict=True))


@dataclass
class Step:
    """An iteration whose losses are still to come."""

    iteration: int
    rate: float
    image_ids: list[int | str]
    losses: PendingLosses
    seconds: float = 0.0


def take_step(
    wrapped: nn.Module,
    optimizer: Any,
    parts: list[Part],
    accelerator: Accelerator,
    *,
    progress: float,
    clip: float,
    stop: bool = False,
) -> PendingLosses:
    """One step of the optimiser, over the parts whose gradients are added; asks the device for nothing.

    Args:
        wrapped, optimizer: as `accelerator` prepared them.
        progress: how much of the run is done, 0 … 1.
        clip: norm that the gradient is cut to.
        stop: that this process wants to stop is known to all of them once they read the losses, as "stop".
    """
    counts = _total([part.counts for part in parts], accelerator)
    losses: dict[str, Tensor] = {}
    for index, part in enumerate(parts):
        part = part.to(accelerator.device)
        with accelerator.no_sync(wrapped) if index < len(parts) - 1 else nullcontext():
            terms = wrapped(part.batch, part.targets, counts, progress)
            accelerator.backward(terms["total"])
        losses = {name: losses.get(name, 0) + term.detach() for name, term in terms.items()}
    losses["stop"] = torch.full_like(losses["total"], float(stop))
    # every process divided by the counts of all, times their number: the mean over processes is the step's loss
    mean: Any = accelerator.reduce(torch.stack(list(losses.values())), "mean")
    norm: Any = accelerator.clip_grad_norm_(wrapped.parameters(), clip)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return PendingLosses(dict(zip(losses, mean.unbind(), strict=True)), norm)


def _total(counts: list[tuple[float, ...]], accelerator: Accelerator) -> tuple[Tensor, ...]:
    """Counts of the whole step, over the parts and the processes, for each process's share: their number divides it."""
    own = torch.tensor(counts).sum(0).to(accelerator.device, non_blocking=True)
    share: Any = accelerator.reduce(own, "mean")
    return share.unbind()
