"""§5.2 Memory of a training step on a device, from tensor shapes and types alone, without computation."""

from __future__ import annotations

import weakref
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

from spinet.config import Config
from spinet.data.segments import Categories, Category, map_tensors
from spinet.data.transforms import collate
from spinet.model.layers import GroupNorm, group_norm_in_order
from spinet.synthcity.mosaic import CATEGORIES, mosaic
from spinet.systems import build_model
from spinet.training.step import Prepare, make_optimizer


class Alive(TorchDispatchMode):
    """Counts the `bytes` of live tensors while active, and their maximum, `most`."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = self.most = 0
        self.known: dict[int, weakref.ref[Any]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        tree_map_only(Tensor, self.note, result)
        return result

    def note(self, tensor: Tensor) -> None:
        """Counts the storage of a tensor once, until it is freed."""
        storage = tensor.untyped_storage()
        if storage._cdata in self.known:
            return
        size = storage.nbytes()
        self.known[storage._cdata] = weakref.ref(storage, partial(self._forget, storage._cdata, size))
        self.bytes += size
        self.most = max(self.most, self.bytes)

    def _forget(self, key: int, size: int, _: Any) -> None:
        del self.known[key]
        self.bytes -= size


def training_memory(
    config: Config, size: tuple[int, int], *, num_classes: tuple[int, int], things: int = 20
) -> dict[str, int]:
    """Bytes that a step needs on a device, with `train.images_per_device` images at once.

    Not included: the driver's context, workspaces of convolutions, and memory that the allocator cannot use. With
    several devices, a second copy of the gradients, in buckets, is not included either.

    Args:
        config: of SPINet or a baseline; `train.precision` "fp32" counts as float32, all others as 16 bits.
        size: height, width of the images, pixels.
        num_classes: thing and stuff classes, at least as many as `CATEGORIES` of `mosaic` has.
        things: number of things on each image.

    Returns:
        `weights`, `gradients`, `optimizer` (its state), and `peak`, the maximum of all tensors at any time.
    """
    images, (num_things, num_stuff) = config.train.images_per_device, num_classes
    classes = range(num_things + num_stuff)
    categories = Categories.of([Category(number, f"class {number}", number < num_things) for number in classes])
    with FakeTensorMode(allow_non_fake_inputs=True) as fake:
        model = build_model(config, categories, weights_follow=True)
        training = model.for_training().train()
    norms: list[Any] = [module for module in training.modules() if isinstance(module, GroupNorm)]
    for norm in norms:  # as on CUDA
        norm.forward = partial(
            group_norm_in_order, groups=norm.num_groups, weight=norm.weight, bias=norm.bias, eps=norm.eps
        )
    sample = mosaic(things, size, seed=0)
    stuff = sample.labels >= CATEGORIES.num_things
    sample.labels[stuff] += num_things - CATEGORIES.num_things
    part = Prepare(model.target_builder())(collate([sample] * images, list(range(images))))
    alive = Alive()
    with fake, alive:
        part = map_tensors(part, fake.from_tensor)
        tree_map_only(Tensor, alive.note, [*training.parameters(), *training.buffers()])
        map_tensors(part, lambda tensor: alive.note(tensor) or tensor)
        weights = sum(parameter.nbytes for parameter in training.parameters())
        optimizer = make_optimizer(training, config.train)
        for parameter in training.parameters():
            parameter.grad = torch.zeros_like(parameter) if parameter.requires_grad else None
        optimizer.step()  # creates the optimiser's state
        optimizer.zero_grad(set_to_none=True)
        alive.most = alive.bytes
        with torch.autocast("cpu", torch.bfloat16, enabled=config.train.precision != "fp32"):
            losses = training(part.batch, part.targets, part.counts)
        losses["total"].backward()
        gradients = sum(p.grad.nbytes for p in training.parameters() if p.grad is not None)
        del losses
        torch.nn.utils.clip_grad_norm_(training.parameters(), config.train.clip_norm)
        optimizer.step()
    state = [t for entry in optimizer.state.values() for t in entry.values() if isinstance(t, Tensor)]
    return {
        "weights": weights,
        "gradients": gradients,
        "optimizer": sum(tensor.nbytes for tensor in state),
        "peak": alive.most,
    }
