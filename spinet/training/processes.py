"""§5.2 Training on several processes: rank 0 decides for all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

import torch
from accelerate import Accelerator, DataLoaderConfiguration
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedDataParallelKwargs, broadcast_object_list
from timm.layers.norm_act import convert_sync_batchnorm
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from spinet.config import Config, Precision
from spinet.data.segments import Categories
from spinet.system import Model
from spinet.systems import build_model

T = TypeVar("T")


def join(precision: Precision, device: torch.device) -> Accelerator:
    """Joins the processes that `torchrun` started, if any. Each has its own device, of the type of `device`."""
    AcceleratorState._reset_state(reset_partial_state=True)  # an earlier run in this process may have had another state
    return Accelerator(
        mixed_precision="no" if precision == "fp32" else precision,
        cpu=device.type == "cpu",
        dataloader_config=DataLoaderConfiguration(dispatch_batches=False),
        kwargs_handlers=[DistributedDataParallelKwargs(gradient_as_bucket_view=True)],
    )


def decide(accelerator: Accelerator, function: Callable[[], T]) -> T:
    """Calls `function` on rank 0, and returns its result, or raises its exception, on every process."""
    outcome: list[Any] = [None]
    if accelerator.is_main_process:
        try:
            outcome = [(function(), None)]
        except Exception as error:
            outcome = [(None, error)]
    value, error = broadcast_object_list(outcome)[0]
    if error is not None:
        raise error
    return value


def build_together(
    accelerator: Accelerator, config: Config, categories: Categories, *, weights_follow: bool = False
) -> Model:
    """Builds the same untrained network on every process, see `build_model`.

    Rank 0 loads pretrained weights, if available. Data-parallel training copies them to the other processes.
    """
    built: list[Model] = []

    def build() -> str:
        built.append(build_model(config, categories, weights_follow=weights_follow))
        return built[0].network.backbone.weights

    weights = decide(accelerator, build)
    if built:
        return built[0]
    without = replace(config, model=replace(config.model, pretrained=False))
    model = build_model(without, categories, weights_follow=weights_follow or weights != "none")
    model.config, model.network.backbone.weights = config, weights
    return model


def synchronise_norms(module: nn.Module) -> None:
    """Makes trainable batch norms use statistics of the images of all processes. Frozen ones do not change."""
    for name, norm in list(module.named_modules()):
        if isinstance(norm, _BatchNorm) and any(parameter.requires_grad for parameter in norm.parameters()):
            module.set_submodule(name, convert_sync_batchnorm(norm))  # torch's version drops timm's activations
