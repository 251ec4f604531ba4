"""Trained weights on disk: safetensors whose header says which network and which classes they belong to."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import nn

from spinet.config import Config, from_dict, to_dict
from spinet.data.segments import Categories, Category
from spinet.model.spinet import SPINet
from spinet.objective.targets import num_semantic
from spinet.runs import atomic_write


class WeightsError(ValueError):
    """A file that does not hold weights that `save_model` wrote."""


@dataclass
class Model:
    """A trained network with what is needed to use it."""

    network: SPINet
    config: Config
    categories: Categories

    @property
    def device(self) -> torch.device:
        return self.network.mean.device


def build_model(config: Config, categories: Categories, *, pretrained: bool | None = None) -> Model:
    """An untrained network for a configuration and the classes of a data set."""
    network = SPINet.from_config(
        config.model,
        num_things=categories.num_things,
        num_stuff=num_semantic(
            config.objective.semantic_classes, num_things=categories.num_things, num_stuff=categories.num_stuff
        ),
        pretrained=pretrained,
    )
    return Model(network, config, categories)


def save_model(model: Model, path: str | Path) -> None:
    """Writes the weights, atomically; `load_model` reads them."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.network.state_dict().items()}
    header = {
        "config": to_dict(model.config),
        "categories": [asdict(category) for category in model.categories.all],
    }
    # one entry: safetensors does not keep the order of several, and equal weights should be equal bytes
    atomic_write(path, save(tensors, metadata={"spinet": json.dumps(header)}))


SHIPPED = Path(__file__).parent / "checkpoints" / "synthcity.safetensors"
"""A SPINet trained on SynthCity that comes with the package; its model card lies beside it."""


def load_model(path: str | Path = SHIPPED, *, device: str | torch.device = "cpu") -> Model:
    """A trained network, ready for `predict`.

    Args:
        path: of a file that `save_model` wrote; by default the weights that come with the package.

    Raises:
        WeightsError: the file is missing, broken, or not written by `save_model`.
    """
    path = Path(path)
    if not path.is_file():
        raise WeightsError(f"{path}: no such file; give the model.safetensors of a training run")
    try:
        with safe_open(path, framework="pt", device=str(device)) as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path}: not a safetensors file, or truncated ({error}); copy it again") from None
    if "spinet" not in header:
        raise WeightsError(f"{path}: these weights were not saved by spinet (no configuration in the header)")
    facts = json.loads(header["spinet"])
    categories = Categories.of([Category(**{**c, "color": tuple(c["color"])}) for c in facts["categories"]])
    model = build_model(from_dict(facts["config"]), categories, pretrained=False)
    model.network.to(device)
    try:
        model.network.load_state_dict(tensors)
    except RuntimeError as error:
        raise WeightsError(
            f"{path}: weights do not fit their own configuration: {str(error).splitlines()[-1]}"
        ) from None
    freeze(model.network)
    return model


def freeze(network: nn.Module) -> None:
    network.eval().requires_grad_(False)
