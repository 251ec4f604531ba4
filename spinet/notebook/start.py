"""What a notebook starts from: a scene with a trained network, and the paths in its parameters."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from spinet.data import PanopticDataset, Sample, open_dataset
from spinet.model.spinet import Features
from spinet.synthcity import generate
from spinet.system import Model
from spinet.weights import SHIPPED, load_model

MULTIPLE = 32
"""Sides of a lesson's images are multiples of this, so that the levels of a pyramid fit them without padding."""


@dataclass(frozen=True)
class Lesson:
    """A scene of a synthetic city, and a trained network. Network and features are computed at their first use."""

    city: PanopticDataset  # the validation split; city.root is the folder
    scene: int
    weights: Path

    @cached_property
    def sample(self) -> Sample:
        """The scene with its ground truth."""
        return self.city[self.scene]

    @cached_property
    def model(self) -> Model:
        """The trained network.

        Raises:
            WeightsError: the file is missing or broken.
            ValueError: the network knows other classes than the city.
        """
        model = load_model(self.weights)
        if model.categories != self.city.categories:
            raise ValueError(f"{self.weights}: knows other classes than the synthetic city; give weights trained on it")
        return model

    @cached_property
    def features(self) -> Features:
        """The network's output for the scene, a batch of one."""
        return self.model.network(self.sample.image[None])


def lesson(
    scene: int = 0,
    *,
    size: Sequence[int] = (512, 1024),
    scenes: int = 1,
    training: int = 0,
    seed: int = 0,
    weights: str | Path | None = None,
) -> Lesson:
    """Draws a synthetic city into a temporary folder, which is deleted when Python ends.

    Args:
        scene: the scene to look at, of the validation split.
        size: height and width of the scenes, pixels, multiples of 32.
        scenes: number of scenes of the validation split; `scene` + 1 if that is more.
        training: number of scenes of the training split.
        seed: of the city.
        weights: file of the trained network, see `input_path`; by default the weights in the package.

    Raises:
        FileNotFoundError: there is no file `weights`.
        ValueError: negative scene, or a size that is too small or no multiple of 32.
    """
    if scene < 0:
        raise ValueError(f"scene = {scene}: give 0 for the first scene, 1 for the second, …")
    height, width = size
    if height % MULTIPLE or width % MULTIPLE:
        raise ValueError(f"size = {list(size)}: give multiples of {MULTIPLE}, so that every level fits the image")
    file = input_path(weights) or SHIPPED
    folder = tempfile.mkdtemp(prefix="spinet-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    counts = {"num_train": training, "num_val": max(scenes, scene + 1)}
    root = Path(folder) / "city"
    generate(root, **counts, size=(height, width), seed=seed, progress=False)
    return Lesson(open_dataset(root, "val"), scene, file)


def input_path(path: str | Path | None) -> Path | None:
    """The file or folder that a parameter of a notebook names; None stays None.

    A relative path is searched in the folder where the notebook runs, then in the folder from which papermill or
    JupyterLab was started, then in the project.

    Raises:
        FileNotFoundError: it is nowhere; the message lists the absolute paths that were tried.
    """
    if path is None:
        return None
    folders = [Path.cwd(), _started_from(), PROJECT / "notebooks", PROJECT]
    tried = list(dict.fromkeys(Path(os.path.normpath(folder / path)) for folder in folders))
    for candidate in tried:
        if candidate.exists():
            return candidate
    raise FileNotFoundError(f"{str(path)!r} does not exist; tried {', '.join(map(str, tried))}")


def output_path(path: str | Path) -> Path:
    """The absolute path of a folder to write to; a relative one starts where papermill or JupyterLab was started."""
    return Path(os.path.normpath(_started_from() / path))


PROJECT = Path(__file__).resolve().parents[2]


def _started_from() -> Path:
    """The folder of the shell, which a kernel inherits in PWD even if it runs in another folder."""
    return Path(os.environ.get("PWD") or Path.cwd())
