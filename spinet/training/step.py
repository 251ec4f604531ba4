"""§5.2 One training step: inputs from the loader's workers, computation on the device, losses read later."""

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
    """Learning rate of an iteration: scaled with the batch size, warmed up linearly from 0.001, then scheduled."""
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
    """SGD or AdamW. Vectors (norms, biases) have no weight decay. Some parts have their own learning rate.

    The `factor` of a group multiplies the rate of every iteration. On CUDA the optimiser is fused: a few kernels update
    all parameters without synchronising with the host. The module must already be on its device.
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
    """The input of one forward pass: images, their targets, and the counts that losses are divided by."""

    batch: Batch  # without segment maps, which only the targets need
    targets: Countable
    counts: tuple[float, ...]

    def to(self, device: torch.device) -> Part:
        """The part on its device; from page-locked memory the copy is asynchronous."""
        return map_tensors(self, lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> Part:
        """The part in page-locked memory; a `DataLoader` calls this."""
        return map_tensors(self, torch.Tensor.pin_memory)


@dataclass(frozen=True)
class Prepare:
    """Makes parts from batches, in the loader's workers. On a device this would take hundreds of small operations."""

    build: TargetBuilder

    def __call__(self, batch: Batch) -> Part:
        targets = self.build(batch.segment_maps, batch.labels, batch.crowd, batch.seeds, batch.smallest_maps)
        light = replace(
            batch, segment_maps=batch.segment_maps[:, :0, :0].clone(), labels=[], crowd=[], smallest_maps=None
        )
        return Part(light, targets, targets.counts())


class PendingLosses:
    """Losses and gradient norm of a step, copied to the host asynchronously."""

    def __init__(self, losses: dict[str, Tensor], norm: Tensor):
        self.names = [*losses, "gradient_norm"]
        values = torch.stack([*losses.values(), norm.to(losses["total"].dtype)])
        self.values = values.to("cpu", non_blocking=True)
        self.arrived = torch.cuda.Event() if values.is_cuda else None
        if self.arrived:
            self.arrived.record()

    def read(self) -> dict[str, float]:
        """Waits for these values, but not for later work on the device."""
        if self.arrived:
            self.arrived.synchronize()
        return dict(zip(self.names, self.values.tolist(), strict=True))


@dataclass
class Step:
    """An iteration whose losses are still being computed."""

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
    """One optimiser step with the accumulated gradients of all parts, without synchronising with the device.

    Args:
        wrapped, optimizer: as `accelerator` prepared them.
        progress: completed share of the run, 0 … 1.
        clip: maximum norm of the gradient.
        stop: whether this process wants to stop; all processes read it with the losses, as "stop".
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
    # each process divides by the mean count of a process, so the mean over processes is the loss of the step
    mean: Any = accelerator.reduce(torch.stack(list(losses.values())), "mean")
    norm: Any = accelerator.clip_grad_norm_(wrapped.parameters(), clip)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return PendingLosses(dict(zip(losses, mean.unbind(), strict=True)), norm)


def _total(counts: list[tuple[float, ...]], accelerator: Accelerator) -> tuple[Tensor, ...]:
    """Counts of the whole step: summed over the parts, averaged over the processes."""
    own = torch.tensor(counts).sum(0).to(accelerator.device, non_blocking=True)
    share: Any = accelerator.reduce(own, "mean")
    return share.unbind()
