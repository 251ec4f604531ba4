"""`python -m spinet.figures [NAME …] [--sweep FOLDER]`: writes the figures of the README and the course, with sources.

Figures that compare networks trained with and without the auxiliary tasks need the folder of a finished sweep of Table
3; its weights are not part of the project. If the input of a figure is missing, the figure is kept and the reason is
printed.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import cast, get_args

import torch

from spinet.config import CITYSCAPES_R50, PRESETS, Config
from spinet.config.baselines import TITLES
from spinet.data import PanopticDataset, Sample, open_dataset
from spinet.data.label_space import LabelSpace
from spinet.evaluation.clustering import compute_feature_map, contour_map, embed, quarter, sample_pixels
from spinet.experiments.campaigns import find_campaigns
from spinet.experiments.pair import SweptPairs, find_pairs
from spinet.experiments.sweep import ExperimentError
from spinet.experiments.tables import LOSSES
from spinet.figures.components import figure_3, figure_4
from spinet.figures.diagrams import Part, figure_1, figure_2
from spinet.figures.ground_truth import figure_targets
from spinet.figures.results import Seen, balance, feature_map, figure_5, gains, panoptic_map, speed
from spinet.figures.runs import loss_curves, paired_dots
from spinet.figures.style import Figure, save
from spinet.inference.predict import postprocess, predict, run_network
from spinet.model.spinet import SPINet
from spinet.objective.objective import Objective
from spinet.objective.targets import TargetBuilder, Targets
from spinet.paper import TABLE_1, TABLE_2
from spinet.records import find_records, read_record
from spinet.report.tables import FEATURES
from spinet.speed.summary import read_benchmarks
from spinet.synthcity import VERSION, generate
from spinet.system import Model
from spinet.training.outcome import RECORD
from spinet.weights import SHIPPED, load_model

FOLDER = Path(__file__).resolve().parents[2] / "figures"
RUNS = FOLDER / "runs"

SIZE, SCENES, SEED = (512, 1024), 4, 0
CITY = f"SynthCity {VERSION}, seed {SEED}, validation, {SIZE[0]} × {SIZE[1]}"
EXPLAINED, COMPARED, MAPPED = 3, (0, 2, 4), 4
"""Scene for the figures of targets and tasks; images of Fig. 5; image for the map of the Panoptic-Feature."""

POINTS = 60
"""Cells per segment on that map."""

Drawn = tuple[Figure, list[str]]
"""A figure and its sources."""


class MissingError(RuntimeError):
    """The input of a figure is missing."""


def overall(city: PanopticDataset) -> Drawn:
    return figure_1(), ["spinet/figures/diagrams.py"]


def architecture(city: PanopticDataset, *, here: Part | None = None) -> Drawn:
    figure = figure_2(_on_meta(CITYSCAPES_R50), PRESETS["cityscapes_r50"].data.size, here=here)
    return figure, ["preset cityscapes_r50"]


def generator(city: PanopticDataset) -> Drawn:
    return figure_3(_on_meta(CITYSCAPES_R50), PRESETS["cityscapes_r50"].data.size), ["preset cityscapes_r50"]


def auxiliary_tasks(city: PanopticDataset) -> Drawn:
    model, sample = load_model(), city[EXPLAINED]
    phi = run_network(model, sample.pixels).features.all_phi[0].float()
    objective = Objective.from_config(model.config)
    figure = figure_4(objective, image=sample.image, phi=phi, targets=_targets(model, sample))
    return figure, [_file(SHIPPED), f"{CITY}, scene {EXPLAINED}"]


def prediction(city: PanopticDataset) -> Drawn:
    image = city[EXPLAINED].pixels
    figure = panoptic_map(image, predict(load_model(), image), city.categories)
    return figure, [_file(SHIPPED), f"{CITY}, scene {EXPLAINED}"]


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


def times(city: PanopticDataset) -> Drawn:
    """Published times, and ours with the most things up to 40, of systems with a published PQ."""
    records = read_benchmarks(RUNS)
    if not records:
        raise MissingError(f"{RUNS}: no bench.json; make bench writes it")
    quality = {row.method: row.cityscapes.pq for row in TABLE_1 if row.cityscapes.pq is not None and not row.deformable}
    quality |= {row.method: row.pq for row in TABLE_2}
    panels = {"Table 2, TITAN Xp": {row.method: (row.total / 1000, row.pq) for row in TABLE_2}}
    measured: dict[tuple[str, int, int, str], dict[int, dict[str, tuple[float, float]]]] = {}
    for record in records:
        height, width = record["size"]
        for row in record["rows"]:
            if row["optimized"] and (title := TITLES.get(row["system"])) in quality:
                conditions = (record["device"]["name"], height, width, row["precision"])
                counts = measured.setdefault(conditions, {})
                counts.setdefault(row["instances"], {})[title] = (row["total_s"], quality[title])
    for (device, height, width, precision), counts in measured.items():
        things = max((count for count in counts if count <= 40), default=min(counts))
        panels[f"{device}\n{precision}, {height} × {width} px\n{things} things"] = counts[things]
    return speed(panels), ["Tables 1 and 2 of the paper", *(f"runs/bench, {record['created']}" for record in records)]


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


def effect_of_tasks(runs: SweptPairs) -> Drawn:
    pair, city = runs.load(), open_dataset(runs.data, "val")
    rows = []
    shown = [index for index in COMPARED if index < len(city)]
    for index in shown:
        image = city[index].pixels
        encoded = run_network(pair.with_tasks, image)
        contour = contour_map(pair.contour, encoded)
        rows.append(Seen(image, predict(pair.without_tasks, image), contour, postprocess(pair.with_tasks, encoded)))
    return figure_5(rows, city.categories), [*_looked_at(runs), f"{runs.data.name} val, images {shown}"]


def panoptic_feature(runs: SweptPairs) -> Drawn:
    pair, city = runs.load(), open_dataset(runs.data, "val")
    shown = min(MAPPED, len(city) - 1)
    fields = {
        "without auxiliary tasks": compute_feature_map(pair.without_tasks, city[shown]),
        "with": compute_feature_map(pair.with_tasks, city[shown]),
    }
    drawn = {
        title: sample_pixels(field, pixels=POINTS, seed=SEED, mask=quarter(field)) for title, field in fields.items()
    }
    maps = {title: embed(pixels.phi, seed=SEED) for title, pixels in drawn.items()}
    image = city[shown].pixels
    stride = len(image) / len(fields["with"].segment_map)
    figure = feature_map(image, drawn["with"], maps, city.categories, stride=stride)
    return figure, [*_looked_at(runs), f"{runs.data.name} val, image {shown}"]


def feature_metrics(runs: SweptPairs) -> Drawn:
    both = (runs.without_tasks, runs.with_tasks)
    measured = [{seed: read_record(run / RECORD)["metrics"] for seed, run in of_row.items()} for of_row in both]
    panels = {}
    for name, title in FEATURES.items():
        found = [{seed: one.get("features", {}).get(name) for seed, one in of_row.items()} for of_row in measured]
        panels[title] = tuple({seed: value for seed, value in of_row.items() if value is not None} for of_row in found)
    if not any(of_row for rows in panels.values() for of_row in rows):
        raise ExperimentError(f"{runs.with_tasks[runs.seed] / RECORD}: no measures of the feature; repeat the sweep")
    return paired_dots(panels, names=("without", "with")), [_run(run) for of_row in both for run in of_row.values()]


FIGURES: dict[str, Callable[[PanopticDataset], Drawn]] = {
    "figure_1": overall,
    "figure_2": architecture,
    **{f"figure_2_{part}": partial(architecture, here=part) for part in get_args(Part)},
    "figure_3": generator,
    "figure_4": auxiliary_tasks,
    "targets": targets,
    "prediction": prediction,
    "training": training,
    "published": published,
    "ablations": ablations,
    "speed": times,
}

OF_A_SWEEP: dict[str, Callable[[SweptPairs], Drawn]] = {
    "figure_5": effect_of_tasks,
    "feature_map": panoptic_feature,
    "feature_metrics": feature_metrics,
}


def _on_meta(config: Config) -> SPINet:
    things, stuff = PRESETS["cityscapes_r50"].data.num_classes
    outputs = LabelSpace(config.objective.semantic_classes, things, stuff).num_outputs
    with torch.device("meta"):
        return SPINet.from_config(config.model, num_things=things, num_stuff=outputs, weights_follow=True)


def _looked_at(runs: SweptPairs) -> list[str]:
    folders = (runs.without_tasks[runs.seed], runs.with_tasks[runs.seed])
    return [f"{_run(folder)}: {_file(folder / 'model.safetensors')}" for folder in folders]


def _run(folder: Path) -> str:
    return f"{folder.parent.name}/{folder.name}"


def _targets(model: Model, sample: Sample) -> Targets:
    build = cast(TargetBuilder, model.target_builder())
    return build(sample.segment_map[None], [sample.labels], [sample.crowd], [SEED])


def _file(path: Path) -> str:
    return f"{path.name}, sha256 {hashlib.sha256(path.read_bytes()).hexdigest()}"


def main(arguments: list[str]) -> None:
    """Writes the named figures, or all."""
    parser = argparse.ArgumentParser(prog="python -m spinet.figures", description="Writes the figures of the course.")
    known = ", ".join([*FIGURES, *OF_A_SWEEP])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"figures to draw, of {known}; default: all")
    of_a_sweep = f"folder of a finished sweep, for {', '.join(OF_A_SWEEP)}"
    parser.add_argument("--sweep", type=Path, metavar="FOLDER", help=of_a_sweep)
    given = parser.parse_args(arguments)
    if unknown := [name for name in given.names if name not in FIGURES | OF_A_SWEEP]:
        raise SystemExit(f"error: no figure {unknown[0]!r}; there are {', '.join(FIGURES | OF_A_SWEEP)}")
    names = given.names or [*FIGURES, *OF_A_SWEEP]
    try:
        runs = find_pairs(given.sweep) if given.sweep else None
        with tempfile.TemporaryDirectory() as folder:
            generate(folder, num_train=0, num_val=SCENES, size=SIZE, seed=SEED, progress=False)
            city = open_dataset(folder, "val")
            for name in names:
                try:
                    figure, sources = _draw(name, city, runs)
                except MissingError as reason:
                    print(f"{name}: not changed: {reason}")
                    continue
                save(figure, FOLDER, name, sources=sources)
                print(FOLDER / f"{name}.png")
    except (ValueError, RuntimeError) as error:
        raise SystemExit(f"error: {error}") from None


def _draw(name: str, city: PanopticDataset, runs: SweptPairs | None) -> Drawn:
    if name in FIGURES:
        return FIGURES[name](city)
    if runs is None:
        raise MissingError("compares runs of a sweep of Table 3: give --sweep FOLDER, or make figures SWEEP=FOLDER")
    return OF_A_SWEEP[name](runs)


if __name__ == "__main__":
    main(sys.argv[1:])
