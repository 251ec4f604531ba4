"""The main job and the ablations: a trained SPINet, its scores and overlays on held-out scenes, and the tables."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from spinet.config import PRESETS, ConfigError, PresetName
from spinet.config.baselines import TITLES
from spinet.config.overrides import override, system_of
from spinet.data import PanopticDataset, open_dataset
from spinet.data.overlay import draw_panoptic, sheet
from spinet.data.segments import decode_ids
from spinet.evaluation.clustering import contour_map
from spinet.evaluation.components import components
from spinet.experiments.sweep import sweep
from spinet.experiments.tables import CAMPAIGNS, PAPER_GROUPS
from spinet.figures.components import feature_picture, principal_axes
from spinet.figures.film import film_frame, save_film
from spinet.files import atomic_write
from spinet.inference.predict import predict, run_network
from spinet.records import read_record
from spinet.report import report
from spinet.report.single import results_table
from spinet.synthcity import generate
from spinet.system import Model
from spinet.training.loop import train
from spinet.training.run import SNAPSHOTS
from spinet.weights import load_model, load_objective

NUM_TRAIN, NUM_VAL, SIZE = 600, 100, (256, 512)

ABLATIONS = {**CAMPAIGNS["synthcity"], "train.iterations": 200, "train.warmup": 50}
"""Settings of the ablations of the preset tiny: a quarter of the iterations of `spinet sweep --campaign synthcity`."""

FILM = (0, 25, 50, 100, 200, 400, 800, 1200, 1600)
"""The film of the main job shows the network after these iterations."""


def reproduce(
    *, preset: PresetName = "tiny", data: Path | None = None, out: Path, seeds: Sequence[int] = (0,)
) -> list[Path]:
    """Runs the main job and the ablations of §5.4; skips finished runs.

    Args:
        preset: "tiny" makes its data, trains, and runs shorter ablations. With other presets the main job is the
            complete row of the ablations.
        data: a folder in Cityscapes or COCO panoptic layout; the default for "tiny" is SynthCity.
        out: output folder: `model.safetensors`, `record.json`, `results.md`, `overlays.jpg`, `film.webp` of the main
            job, the runs of the ablations in `ablations/`, and `tables.md`, `report.html`.
        seeds: seeds of the ablations.

    Returns:
        The result files.
    """
    overrides = ABLATIONS if preset == "tiny" else {}
    if not seeds:
        raise ConfigError("no seed is named; give --seeds 0, or 0 1 2 to tell a difference from noise")
    for seed in seeds:  # raise errors in the settings of the ablations before the main job
        override(PRESETS[preset], {**overrides, "train.seed": seed})
    if data is None:
        if preset != "tiny":
            raise ConfigError(f"the preset {preset} needs a data set: give --data, make reproduce DATA=…")
        data = Path("data/synthcity")
        generate(data, num_train=NUM_TRAIN, num_val=NUM_VAL, size=SIZE, seed=0, workers=2)
    made = []
    if preset == "tiny":
        config = override(PRESETS[preset], {"train.snapshots": FILM}).config
        train(config, data=data, out=out, resume=True, experiment="reproduce")
        made += [*show(out, data, out), *film(out, data)]
    folders = sweep(
        preset=preset,
        data=data,
        out=out / "ablations",
        groups=PAPER_GROUPS[preset],
        seeds=seeds,
        overrides=overrides,
    )
    if preset != "tiny":
        records = {folder: read_record(folder / "record.json") for folder in folders}
        made += show(
            next(folder for folder, record in records.items() if record["config"] == record["base"]), data, out
        )
    return [*made, *report([out], out)]


def show(run: Path, data: Path, out: Path) -> list[Path]:
    """Writes `results.md` and `overlays.jpg` of a run; returns the paths of its weights, its record and both files."""
    atomic_write(out / "results.md", results_table([read_record(run / "record.json")]).markdown().encode())
    image = overlay_sheet(load_model(run / "model.safetensors"), open_dataset(data, "val"))
    _, content = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 88])
    atomic_write(out / "overlays.jpg", content.tobytes())
    return [run / "model.safetensors", run / "record.json", out / "results.md", out / "overlays.jpg"]


def film(run: Path, data: Path) -> list[Path]:
    """Writes `film.webp` from the snapshots of a run: one validation image after more and more iterations.

    Returns:
        The path of the film; nothing if the run has no snapshots, because it began before there were any.
    """
    folders = sorted((run / SNAPSHOTS).glob("*"))
    if not folders:
        return []
    dataset = open_dataset(data, "val")
    image = dataset[0].pixels
    axes = principal_axes(_computed(folders[-1], image)[1])  # those of the last frame for all frames
    frames = []
    for folder in folders:
        model, phi, contour, confidence = _computed(folder, image)
        title = f"after {int(folder.name)} of {model.config.train.iterations} iterations"
        feature, prediction = feature_picture(phi, axes), predict(model, image)
        frames.append(film_frame(image, prediction, feature, contour, confidence, dataset.categories, title=title))
    save_film(frames, run / "film.webp")
    return [run / "film.webp"]


def _computed(folder: Path, image: np.ndarray) -> tuple[Model, Tensor, np.ndarray, np.ndarray]:
    """The network of a snapshot, with its φ, its contour map and its class head's largest score at each location."""
    model = load_model(folder / "model.safetensors")
    output = run_network(model, image)
    contour = load_objective(folder / "auxiliary.safetensors").inter
    assert contour is not None  # the main job trains all tasks
    levels = [logits[0].amax(0).float() for logits in output.features.class_logits]
    finest = levels[0].shape
    scores = [F.interpolate(level[None, None], size=finest, mode="nearest")[0, 0] for level in levels]
    confidence = torch.stack(scores).amax(0).sigmoid().numpy()
    return model, output.features.phi[0].float(), contour_map(contour, output), confidence


def overlay_sheet(model: Model, dataset: PanopticDataset, *, rows: int = 6) -> np.ndarray:
    """Rows of held-out images of one size: image, ground truth, prediction, semantics plus connected components."""
    images = []
    size = dataset.records[0].height, dataset.records[0].width
    alike = [index for index, record in enumerate(dataset.records) if (record.height, record.width) == size]
    for chosen in np.linspace(0, len(alike) - 1, min(rows, len(alike))).round().astype(int):
        index = alike[chosen]
        raw, segments = dataset.read(index), dataset.records[index].segments_info
        prediction = predict(model, raw.image)
        ids, parts = components(prediction, model.categories, model.config.inference, model.space)
        drawn = (
            (decode_ids(raw.panoptic), segments),
            (prediction.ids, prediction.segments),
            (ids, parts),
        )
        images.append([raw.image, *(draw_panoptic(raw.image, a, b, model.categories) for a, b in drawn)])
    system = TITLES[system_of(model.config)]
    return sheet(images, titles=["image", "ground truth", system, "semantics + components"])
