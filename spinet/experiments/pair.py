"""§4, Fig. 5 Two networks that were trained alike but for the auxiliary tasks, to be looked at side by side."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from spinet.config import Config, ConfigError
from spinet.data.synthcity import generate
from spinet.experiments.settings import differences, find_preset, override
from spinet.objective.auxiliary import InterClassContour
from spinet.train import train
from spinet.weights import SHIPPED, Model, load_model, load_objective

TASKS_OFF = {"objective.inter_class_contour": 0.0, "objective.intra_class_triplet": 0.0}
SHIPPED_WITHOUT = SHIPPED.with_name("synthcity_without_auxiliary.safetensors")
SHIPPED_HEADS = SHIPPED.with_name("synthcity_auxiliary.safetensors")
"""Beside the weights that come with the package: those trained without the tasks, and the heads of the tasks."""

BRIEF = {
    "model.fpn_channels": 32,
    "model.filter_channels": 32,
    "model.feature_channels": 32,
    "model.head_convs": 1,
    "input.crop": [128, 256],
    "input.workers": 0,
    "train.warmup": 10,
}
"""What `train_pair` changes of the preset "tiny"."""


@dataclass(frozen=True)
class Pair:
    """`contour` is the contour head that the first network was trained with."""

    with_tasks: Model
    without_tasks: Model
    contour: InterClassContour


def load_pair(with_tasks: str | Path, without_tasks: str | Path, heads: str | Path) -> Pair:
    """Two trained networks.

    Args:
        with_tasks: the `model.safetensors` of a run with both auxiliary tasks.
        without_tasks: that of a run without them, and alike in everything else but the seed.
        heads: the `auxiliary.safetensors` of the first run.

    Raises:
        WeightsError: a file is missing, broken, or not what it should be.
        ConfigError: the runs differ in something else, or the first had no contour task.
    """
    first, second = load_model(with_tasks), load_model(without_tasks)
    contour = load_objective(heads).inter
    if contour is None:
        raise ConfigError(f"{heads}: of a run without the contour task; give that of one with both tasks")
    apart = differences(second.config, first.config)
    apart.pop("train.seed", None)
    if apart | TASKS_OFF != apart:
        raise ConfigError(f"{without_tasks}: of a run with an auxiliary task; give that of one with {TASKS_OFF}")
    if others := apart.keys() - TASKS_OFF.keys():
        raise ConfigError(f"{without_tasks}: also differs from {with_tasks} in {', '.join(sorted(others))}")
    if first.categories != second.categories:
        raise ConfigError(f"{without_tasks}: was trained on other classes than {with_tasks}")
    return Pair(first, second, contour)


def shipped_pair() -> Pair | None:
    """The networks that come with the package; None where one of the files is not there."""
    files = (SHIPPED, SHIPPED_WITHOUT, SHIPPED_HEADS)
    return load_pair(*files) if all(path.is_file() for path in files) else None


def train_pair(folder: str | Path, *, iterations: int, seed: int = 0) -> Pair:
    """Trains two networks for some seconds on a handful of small scenes: enough to try things out, not to judge by.

    Args:
        folder: gets the scenes and both runs; a second call with the same folder trains no more.
        iterations: of each, with 4 crops of 128 × 256 pixels.
    """
    folder = Path(folder)
    generate(folder / "synthcity", num_train=48, num_val=2, size=(128, 256), seed=seed, progress=False)
    start: Config = override(find_preset("tiny"), {**BRIEF, "train.iterations": iterations, "train.seed": seed})
    for name, config in (("with", start), ("without", override(start, TASKS_OFF))):
        train(config, data=folder / "synthcity", out=folder / name, resume=True, experiment=f"{name} auxiliary tasks")
    files = (folder / "with" / "model", folder / "without" / "model", folder / "with" / "auxiliary")
    return load_pair(*(path.with_suffix(".safetensors") for path in files))
