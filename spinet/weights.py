"""Trained weights on disk: safetensors with the configuration and the classes in the header."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from spinet.config import Config, Preset, from_dict, to_dict
from spinet.data.segments import Categories, Category
from spinet.files import SEAL, atomic_write
from spinet.objective.objective import Objective
from spinet.system import Model
from spinet.systems import build_model


class WeightsError(ValueError):
    """A file does not have the expected weights."""


def save_model(model: Model, path: str | Path) -> None:
    """Writes the weights with their sha256, atomically; `load_model` reads them."""
    categories = [asdict(category) for category in model.categories.all]
    _write(path, model.network, {"config": to_dict(model.config), "categories": categories})


def save_objective(objective: nn.Module, config: Config, path: str | Path) -> None:
    """Writes the weights of the auxiliary heads, which inference does not use; `load_objective` reads them."""
    _write(path, objective, {"config": to_dict(config)})


def heads_file(path: str | Path) -> Path:
    """The file of the auxiliary heads that belong to a model file, in the same folder.

    It is `auxiliary.safetensors` for `model.safetensors`, and `NAME_auxiliary.safetensors` for `NAME.safetensors`.
    """
    path = Path(path)
    return path.with_name("auxiliary.safetensors" if path.stem == "model" else f"{path.stem}_auxiliary.safetensors")


CHECKPOINTS = Path(__file__).parent / "checkpoints"

SHIPPED = CHECKPOINTS / "synthcity.safetensors"
"""A SPINet trained on SynthCity, part of the package. Its model card and auxiliary heads are in the same folder."""

SHIPPED_WITHOUT_TASKS = CHECKPOINTS / "synthcity_no_tasks.safetensors"
"""A SPINet trained in the same way, but without the auxiliary tasks."""


def load_model(path: str | Path = SHIPPED, *, device: str | torch.device = "cpu") -> Model:
    """Loads a trained network for `predict`.

    Args:
        path: a file from `save_model`; by default the weights in the package.

    Raises:
        WeightsError: the file is missing, broken, or not written by `save_model`.
    """
    tensors, facts = _read(path)
    if "categories" not in facts:
        raise WeightsError(f"{path}: weights of the auxiliary heads; give the model.safetensors in the same folder")
    categories = Categories.of([Category(**{**c, "color": tuple(c["color"])}) for c in facts["categories"]])
    model = build_model(from_dict(facts["config"]), categories, weights_follow=True)
    _fill(model.network, tensors, path, device)
    return model


def load_objective(path: str | Path, *, device: str | torch.device = "cpu") -> Objective:
    """Loads the objective of a training, for its auxiliary heads; heads that were off are None.

    Raises:
        WeightsError: the file is missing, broken, or not written by `save_objective`.
    """
    tensors, facts = _read(path)
    objective = Objective.from_config(from_dict(facts["config"]))
    _fill(objective, tensors, path, device)
    return objective


@dataclass(frozen=True)
class Initialisation:
    """Start weights of a training: the tensors used from files, and those without a match."""

    file: str
    sha256: str
    heads_sha256: str | None  # of the file of the auxiliary heads; None if there is none
    kept: int  # number of tensors used from the files
    left_out: list[str]  # tensors of the files without one of that name and shape in the training
    fresh: list[str]  # tensors of the training without one of that name and shape in the files

    def __str__(self) -> str:
        out = f"; left out, since name or shape differ: {', '.join(self.left_out)}" if self.left_out else ""
        fresh = f"; start at random: {', '.join(self.fresh)}" if self.fresh else ""
        return f"{self.file}: {self.kept} tensors kept{out}{fresh}"


def initialise(model: Model, path: str | Path, heads: nn.Module | None = None) -> Initialisation:
    """Starts a network from a trained one: copies every tensor with the same name and shape.

    With other classes these are all except the class head's last layer and the stuff filters.

    Args:
        model: a model of the same system as the weights.
        path: a file from `save_model`.
        heads: the auxiliary heads of the training. They start from those beside `path`, if they are there.

    Raises:
        WeightsError: the file is missing, broken, not written by `save_model`, of another system, or no tensor fits; or
            that of the heads is broken, or a network.
    """
    system, own_system = (c.baseline.system if c.baseline else "spinet" for c in (read_config(path), model.config))
    tensors, _ = _read(path)
    if system != own_system:
        raise WeightsError(f"{path}: weights of {system}, not of {own_system}; give --system {system}")
    kept, left_out, fresh = _copy(tensors, model.network)
    if not kept:
        raise WeightsError(f"{path}: no tensor fits the network; leave out the --model options that change its sizes")
    heads_sha256 = None
    if heads is not None:
        beside = heads_file(path)
        tensors = {}
        if beside.is_file():
            tensors, facts = _read(beside)
            if "categories" in facts:
                raise WeightsError(f"{beside}: a network, not the auxiliary heads of {path}; remove it or rename it")
            heads_sha256 = hash_of(beside)
        kept, left_out, fresh = (a + b for a, b in zip((kept, left_out, fresh), _copy(tensors, heads), strict=True))
    return Initialisation(
        file=Path(path).name,
        sha256=hash_of(path),
        heads_sha256=heads_sha256,
        kept=len(kept),
        left_out=left_out,
        fresh=fresh,
    )


def _copy(tensors: dict[str, Tensor], module: nn.Module) -> tuple[list[str], list[str], list[str]]:
    """Copies the tensors that fit. Returns the names of these, of the others, and of those that the module lacks."""
    own = module.state_dict()
    fits = {name: t for name, t in tensors.items() if name in own and own[name].shape == t.shape}
    module.load_state_dict(fits, strict=False)
    return list(fits), sorted(tensors.keys() - fits.keys()), sorted(own.keys() - fits.keys())


def read_config(path: str | Path) -> Config:
    """The configuration that the weights in a file were trained with.

    Raises:
        WeightsError: the file is missing, broken, or not written by `save_model`.
    """
    _, facts = _read(path)
    if "categories" not in facts:
        raise WeightsError(f"{path}: weights of the auxiliary heads; give the model.safetensors in the same folder")
    return from_dict(facts["config"])


def start_from(preset: Preset, init: str | Path | None) -> Preset:
    """The preset with the network of the initial weights `init`, if there are any.

    Raises:
        WeightsError: see `read_config`.
    """
    return preset if init is None else replace(preset, config=replace(preset.config, model=read_config(init).model))


def hash_of(path: str | Path) -> str:
    """The sha256 of a file of weights; records and names of runs identify initial weights by it.

    Raises:
        WeightsError: the file is missing.
    """
    try:
        return hashlib.sha256(Path(path).read_bytes()).hexdigest()
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read, {error.strerror}") from None


def _write(path: str | Path, module: nn.Module, header: dict[str, Any]) -> None:
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in module.state_dict().items()}
    # only one entry: safetensors does not keep the order of several, and equal weights should give equal bytes
    header = header | {SEAL: _digest(tensors, header)}
    atomic_write(path, save(tensors, metadata={"spinet": json.dumps(header)}))


def _digest(tensors: dict[str, Tensor], header: dict[str, Any]) -> str:
    """sha256 of the tensors and of the rest of the header."""
    digest = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _read(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    path = Path(path)
    if not path.is_file():
        what = "a folder" if path.is_dir() else "no such file"
        raise WeightsError(f"{path}: {what}; give the model.safetensors of a training run")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        if path.suffix in (".pt", ".pth", ".ckpt") or path.read_bytes()[:4] == b"PK\x03\x04":
            raise WeightsError(
                f"{path}: a checkpoint, to resume training from; give the model.safetensors that training ends with"
            ) from None
        raise WeightsError(f"{path}: not a safetensors file, or truncated ({error}); copy it again") from None
    if "spinet" not in metadata:
        raise WeightsError(f"{path}: these weights were not saved by spinet (no configuration in the header)")
    try:
        header = json.loads(metadata["spinet"])
        seal = header.pop(SEAL, None)
    except (ValueError, AttributeError) as error:
        raise WeightsError(f"{path}: damaged, its configuration is not JSON ({error}); copy it again") from None
    if seal is not None and seal != _digest(tensors, header):
        raise WeightsError(f"{path}: damaged, its sha256 differs; copy it again")
    return tensors, header


def _fill(module: nn.Module, tensors: dict[str, Tensor], path: str | Path, device: str | torch.device) -> None:
    module.to(device)
    try:
        module.load_state_dict(tensors)
    except RuntimeError as error:
        complaint = str(error).splitlines()[-1]
        raise WeightsError(f"{path}: weights do not fit their own configuration: {complaint}") from None
    freeze(module)


def freeze(module: nn.Module) -> None:
    module.eval().requires_grad_(False)
