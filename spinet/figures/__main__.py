"""`python -m spinet.figures [NAME …]`: writes the figures of the README and the course, each with its sources.

A figure of something that is not there yet, such as the runs of an ablation, is left as it is, and the reason is said.
"""

from __future__ import annotations

import csv
import hashlib
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch

from spinet.clustering import contour_map, embed, read_field, sample_pixels
from spinet.config import CITYSCAPES_R50, IMAGE_SIZE, NUM_CLASSES, Config
from spinet.data import PanopticDataset, Sample, open_dataset
from spinet.data.synthcity import VERSION, generate
from spinet.experiments.pair import SHIPPED_HEADS, SHIPPED_WITHOUT, Pair, shipped_pair
from spinet.experiments.tables import LOSSES
from spinet.figures.components import figure_3, figure_4
from spinet.figures.diagrams import figure_1, figure_2
from spinet.figures.ground_truth import figure_targets
from spinet.figures.results import Seen, balance, feature_map, figure_5, gains
from spinet.figures.runs import loss_curves
from spinet.figures.style import Figure, save
from spinet.inference import encode, predict, read_out
from spinet.model.spinet import SPINet
from spinet.objective.objective import Objective
from spinet.objective.targets import Targets, num_semantic
from spinet.paper import TABLE_1
from spinet.report.campaigns import find_campaigns
from spinet.runs import find_records
from spinet.train import target_builder
from spinet.weights import SHIPPED, Model, load_model

FOLDER = Path(__file__).resolve().parents[2] / "figures"
RUNS = FOLDER / "runs"

SIZE, SCENES, SEED = (256, 512), 6, 0
CITY = f"SynthCity {VERSION}, seed {SEED}, validation, {SIZE[0]} × {SIZE[1]}"
EXPLAINED, COMPARED, MAPPED = 3, (0, 2, 4), 4
"""Scenes in which targets and tasks are explained; of Fig. 5; on the map of the Panoptic-Feature."""

POINTS = 60
"""Cells of a segment on that map."""

Drawn = tuple[Figure, list[str]]
"""A figure and its sources."""


class MissingError(RuntimeError):
    """What a figure would show is not there."""


def overall(city: PanopticDataset) -> Drawn:
    return figure_1(), ["spinet/figures/diagrams.py"]


def architecture(city: PanopticDataset) -> Drawn:
    return figure_2(_on_meta(CITYSCAPES_R50), IMAGE_SIZE["cityscapes_r50"]), ["preset cityscapes_r50"]


def generator(city: PanopticDataset) -> Drawn:
    return figure_3(_on_meta(CITYSCAPES_R50), IMAGE_SIZE["cityscapes_r50"]), ["preset cityscapes_r50"]


def auxiliary_tasks(city: PanopticDataset) -> Drawn:
    model, sample = load_model(), city[EXPLAINED]
    phi = encode(model, _pixels(sample)).features.phi[0].float()
    objective = Objective(config=model.config.objective, feature_channels=model.config.model.feature_channels)
    figure = figure_4(objective, image=sample.image, phi=phi, targets=_targets(model, sample))
    return figure, [_file(SHIPPED), f"{CITY}, scene {EXPLAINED}"]


def effect_of_tasks(city: PanopticDataset) -> Drawn:
    pair = _pair()
    rows = []
    for index in COMPARED:
        image = _pixels(city[index])
        encoded = encode(pair.with_tasks, image)
        contour = contour_map(pair.contour, encoded)
        rows.append(Seen(image, predict(pair.without_tasks, image), contour, read_out(pair.with_tasks, encoded)))
    files = [_file(path) for path in (SHIPPED, SHIPPED_WITHOUT, SHIPPED_HEADS)]
    return figure_5(rows, city.categories), [*files, f"{CITY}, scenes {', '.join(map(str, COMPARED))}"]


def panoptic_feature(city: PanopticDataset) -> Drawn:
    pair, sample = _pair(), city[MAPPED]
    drawn = {
        title: sample_pixels(read_field(model, sample), pixels=POINTS, seed=SEED)
        for title, model in (("without auxiliary tasks", pair.without_tasks), ("with", pair.with_tasks))
    }
    maps = {title: embed(pixels.phi, seed=SEED) for title, pixels in drawn.items()}
    figure = feature_map(_pixels(sample), drawn["with"], maps, city.categories)
    return figure, [_file(SHIPPED), _file(SHIPPED_WITHOUT), f"{CITY}, scene {MAPPED}"]


def targets(city: PanopticDataset) -> Drawn:
    model, sample = load_model(), city[EXPLAINED]
    figure = figure_targets(sample, _targets(model, sample), model.network.strides, city.categories)
    return figure, [_file(SHIPPED), f"{CITY}, scene {EXPLAINED}"]


def training(city: PanopticDataset) -> Drawn:
    path = RUNS / "reproduce.csv"
    if not path.exists():
        raise MissingError(f"{path}: no log; copy the log.csv of make reproduce there")
    with path.open() as file:
        rows = list(csv.DictReader(file))
    return loss_curves({name: [float(row[name]) for row in rows] for name in rows[0]}), ["runs/reproduce.csv"]


def published(city: PanopticDataset) -> Drawn:
    return balance(TABLE_1), ["Table 1 of the paper"]


def ablations(city: PanopticDataset) -> Drawn:
    names = [row.title for row in LOSSES.rows[1:]]
    start = LOSSES.rows[0]
    paper = {row.title: row.paper.pq for row in LOSSES.rows if row.paper and row.paper.pq is not None}
    panels = {f"paper, {LOSSES.measured_on}": {name: [paper[name] - paper[start.title]] for name in names}}
    sources = ["Table 3 of the paper"]
    records = find_records(RUNS)
    for campaign in find_campaigns(r for r in records.values() if r["status"] == "finished"):
        runs = campaign.rows(LOSSES)
        first = runs[start.title]
        paired = {name: sorted(runs[name].keys() & first.keys()) for name in names}
        if any(paired.values()):
            panels[f"ours, {campaign.data} val"] = {
                name: [runs[name][seed]["metrics"]["PQ"] - first[seed]["metrics"]["PQ"] for seed in seeds]
                for name, seeds in paired.items()
            }
            used = [record for of_row in runs.values() for record in of_row.values()]
            sources += [str(path.relative_to(FOLDER)) for path, record in records.items() if record in used]
    return gains(panels, label=f"PQ − PQ of “{start.title}”"), sources


FIGURES: dict[str, Callable[[PanopticDataset], Drawn]] = {
    "figure_1": overall,
    "figure_2": architecture,
    "figure_3": generator,
    "figure_4": auxiliary_tasks,
    "figure_5": effect_of_tasks,
    "feature_map": panoptic_feature,
    "targets": targets,
    "training": training,
    "published": published,
    "ablations": ablations,
}


def _on_meta(config: Config) -> SPINet:
    things, stuff = NUM_CLASSES["cityscapes_r50"]
    outputs = num_semantic(config.objective.semantic_classes, num_things=things, num_stuff=stuff)
    with torch.device("meta"):
        return SPINet.from_config(config.model, num_things=things, num_stuff=outputs, pretrained=False)


def _pair() -> Pair:
    pair = shipped_pair()
    if pair is None:
        raise MissingError(f"{SHIPPED_WITHOUT} or {SHIPPED_HEADS} is missing")
    return pair


def _targets(model: Model, sample: Sample) -> Targets:
    return target_builder(model)(sample.segment_map[None], [sample.labels], [sample.crowd], [SEED])


def _pixels(sample: Sample):
    return sample.image.permute(1, 2, 0).numpy()


def _file(path: Path) -> str:
    with path.open("rb") as file:
        return f"{path.name}, sha256 {hashlib.file_digest(file, 'sha256').hexdigest()}"


def main(names: list[str]) -> None:
    """Writes the named figures, or all."""
    if unknown := [name for name in names if name not in FIGURES]:
        raise SystemExit(f"error: no figure {unknown[0]!r}; there are {', '.join(FIGURES)}")
    with tempfile.TemporaryDirectory() as folder:
        generate(folder, num_train=0, num_val=SCENES, size=SIZE, seed=SEED, progress=False)
        city = open_dataset(folder, "val")
        for name in names or FIGURES:
            try:
                figure, sources = FIGURES[name](city)
            except MissingError as reason:
                print(f"{name}: left as it is: {reason}")
                continue
            save(figure, FOLDER, name, sources=sources)
            print(FOLDER / f"{name}.png")


if __name__ == "__main__":
    main(sys.argv[1:])
