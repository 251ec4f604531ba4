"""`python -m spinet.figures [NAME …] [--sweep FOLDER]`: writes the figures of the README and the course, with sources.

Figures that compare networks trained with and without the auxiliary tasks show the weights in the package, or those of
a finished sweep of Table 3. If the input of a figure is missing, the figure is kept and the reason is printed.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any, cast, get_args

import torch

from spinet.config import CITYSCAPES_R50, PRESETS, Config
from spinet.config.baselines import TITLES
from spinet.data import PanopticDataset, Sample, open_dataset
from spinet.data.label_space import LabelSpace
from spinet.evaluation.clustering import compute_feature_map, contour_map, embed, pool, quarter, sample_pixels
from spinet.evaluation.oracle import best_masks
from spinet.experiments.campaigns import Campaign, find_campaigns, newest
from spinet.experiments.pair import Pair, SweptPairs, find_pairs, load_shipped_pair
from spinet.experiments.tables import LOSSES, WITH_TASKS, WITHOUT_TASKS, Row
from spinet.figures.clusters import feature_map
from spinet.figures.components import figure_3, figure_4
from spinet.figures.diagrams import Part, figure_1, figure_2
from spinet.figures.failures import failures, small_masks
from spinet.figures.ground_truth import figure_targets
from spinet.figures.results import Seen, balance, figure_5, gains, panoptic_map, speed
from spinet.figures.runs import learned_by_heart, loss_curves, paired_dots
from spinet.figures.style import Figure, save
from spinet.files import read_json
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
from spinet.weights import SHIPPED, SHIPPED_WITHOUT_TASKS, load_model

FOLDER = Path(__file__).resolve().parents[2] / "figures"
RUNS = FOLDER / "runs"

SIZE, SCENES, SEED = (512, 1024), 4, 0
CITY = f"SynthCity {VERSION}, seed {SEED}, validation, {SIZE[0]} × {SIZE[1]}"
EXPLAINED, COMPARED, MAPPED = 3, (0, 2, 3), (3, 0, 1, 2)
"""Scene for the figures of targets and tasks; images of Fig. 5; images for the map of the Panoptic-Feature, of which
the first, a street with many cars, is shown."""

POINTS = 20
"""Cells per segment on that map."""

Drawn = tuple[Figure, list[str]]
"""A figure and its sources."""


class MissingError(RuntimeError):
    """The input of a figure is missing."""


@dataclass(frozen=True)
class Compared:
    """Networks trained without and with the auxiliary tasks, their images, and the names of both as sources."""

    pair: Pair
    images: PanopticDataset
    data: str
    weights: list[str]

    def shown(self, wanted: tuple[int, ...]) -> list[int]:
        """The images of these indices that exist."""
        return [index for index in wanted if index < len(self.images)]

    @classmethod
    def shipped(cls, city: PanopticDataset) -> Compared:
        return cls(load_shipped_pair(), city, CITY, [_file(SHIPPED), _file(SHIPPED_WITHOUT_TASKS)])

    @classmethod
    def swept(cls, runs: SweptPairs) -> Compared:
        folders = (runs.without_tasks[runs.seed], runs.with_tasks[runs.seed])
        weights = [f"{one.parent.name}/{one.name}: {_file(one / 'model.safetensors')}" for one in folders]
        return cls(runs.load(), open_dataset(runs.data, "val"), f"{runs.data.name} val", weights)


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


def missed_things(city: PanopticDataset) -> Drawn:
    model = load_model()
    figure = failures((city[index] for index in range(SCENES)), partial(predict, model), city.categories)
    return figure, [_file(SHIPPED), f"{CITY}, {SCENES} scenes"]


def masks(city: PanopticDataset) -> Drawn:
    model = load_model()
    figure = small_masks(
        (city[index] for index in range(SCENES)),
        lambda sample: best_masks(model, run_network(model, sample.pixels), sample),
        city.categories,
    )
    return figure, [_file(SHIPPED), f"{CITY}, {SCENES} scenes"]


def targets(city: PanopticDataset) -> Drawn:
    model, sample = load_model(), city[EXPLAINED]
    figure = figure_targets(sample, _targets(model, sample), model.network.strides, city.categories)
    return figure, [_file(SHIPPED), f"{CITY}, scene {EXPLAINED}"]


def training(city: PanopticDataset) -> Drawn:
    path = RUNS / "reproduce.csv"
    if not path.exists():
        raise MissingError(f"{path}: no log; copy the log.csv of make reproduce there")
    return loss_curves(_columns(path)), ["runs/reproduce.csv"]


def four_scenes(city: PanopticDataset) -> Drawn:
    """The paper's network on four scenes that it learns by heart."""
    folder = FOLDER / "four"
    if not (folder / "record.json").exists():
        raise MissingError(f"{folder}: no record; docs/experiments.md says how to make it")
    metrics = read_record(folder / "record.json")["metrics"]
    limit = read_json(folder / "oracle.json")["scores"]["all"]
    names = ("PQ", "PQ_th", "PQ_st")
    figure = learned_by_heart(_columns(folder / "log.csv"), {name: metrics[name] for name in names}, limit)
    return figure, [f"four/{name}" for name in ("log.csv", "record.json", "oracle.json")]


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


def _with_pairs(rows: Sequence[Row]) -> tuple[dict[Path, Any], dict[str, Campaign]]:
    """All records, and the newest campaign of each subject that has a pair of runs, with equal seeds, of these rows."""
    records = find_records(RUNS)

    def paired(campaign: Campaign) -> bool:
        first, *others = (campaign.rows(LOSSES)[row.title] for row in rows)
        return any(first.keys() & other.keys() for other in others)

    campaigns = find_campaigns(record for record in records.values() if record["status"] == "finished")
    return records, newest(filter(paired, campaigns))


def ablations(city: PanopticDataset) -> Drawn:
    names = [row.title for row in LOSSES.rows[1:]]
    start = LOSSES.rows[0]
    paper = {row.title: row.paper.pq for row in LOSSES.rows if row.paper and row.paper.pq is not None}
    panels = {f"paper\n{LOSSES.measured_on}": {name: [paper[name] - paper[start.title]] for name in names}}
    sources = ["Table 3 of the paper"]
    records, campaigns = _with_pairs(LOSSES.rows)
    for subject, campaign in campaigns.items():
        runs = campaign.rows(LOSSES)
        first = runs[start.title]
        panels["ours\n" + subject.replace(", ", "\n")] = {
            name: [
                runs[name][seed]["metrics"]["PQ"] - first[seed]["metrics"]["PQ"]
                for seed in sorted(runs[name].keys() & first.keys())
            ]
            for name in names
        }
        used = [record for of_row in runs.values() for record in of_row.values()]
        sources += [str(path.relative_to(FOLDER)) for path, record in records.items() if record in used]
    return gains(panels, label=f"PQ − PQ of “{start.title}”"), sources


def feature_metrics(city: PanopticDataset) -> Drawn:
    """The measures of the campaign with the most pairs of runs, the longest of several."""
    records, found = _with_pairs((WITHOUT_TASKS, WITH_TASKS))
    campaigns = []
    for campaign in found.values():
        without, with_tasks = (campaign.rows(LOSSES)[row.title] for row in (WITHOUT_TASKS, WITH_TASKS))
        pairs = [(without[seed], with_tasks[seed]) for seed in sorted(without.keys() & with_tasks.keys())]
        campaigns.append((len(pairs), pairs[0][0]["iterations"], campaign.data, pairs))
    if not campaigns:
        raise MissingError(f"{RUNS}: no records of Table 3 without and with the tasks; spinet sweep writes them")
    _, iterations, data, pairs = max(campaigns, key=lambda one: one[:2])

    def values(name: str) -> list[dict[int, float]]:
        rows = zip(*pairs, strict=True)
        found = [{one["seed"]: one["metrics"].get("features", {}).get(name) for one in row} for row in rows]
        return [{seed: value for seed, value in row.items() if value is not None} for row in found]

    guesses = [value for row in values("pixel_chance") for value in row.values()]
    chance = {"distance_ratio": 1.0, "triplet_accuracy": 0.5} | ({"pixel_accuracy": fmean(guesses)} if guesses else {})
    panels = {title: tuple(values(name)) for name, title in FEATURES.items()}
    lines = {FEATURES[name]: value for name, value in chance.items()}
    figure = paired_dots(panels, names=("without", "with"), chance=lines)
    used = [record for pair in pairs for record in pair]
    sources = [str(path.relative_to(FOLDER)) for path, record in records.items() if record in used]
    return figure, [*sources, f"{data}, {iterations} iterations"]


def effect_of_tasks(compared: Compared) -> Drawn:
    pair, rows, shown = compared.pair, [], compared.shown(COMPARED)
    for index in shown:
        image = compared.images[index].pixels
        encoded = run_network(pair.with_tasks, image)
        contour = contour_map(pair.contour, encoded)
        rows.append(Seen(image, predict(pair.without_tasks, image), contour, postprocess(pair.with_tasks, encoded)))
    return figure_5(rows, compared.images.categories), [*compared.weights, f"{compared.data}, images {shown}"]


def panoptic_feature(compared: Compared) -> Drawn:
    pair, images, shown = compared.pair, compared.images, compared.shown(MAPPED) or [0]
    drawn, stride = {}, 4.0
    for title, model in {"without auxiliary tasks": pair.without_tasks, "with": pair.with_tasks}.items():
        fields = [compute_feature_map(model, images[index]) for index in shown]
        stride = images[shown[0]].image.shape[1] / len(fields[0].segment_map)
        drawn[title] = pool([sample_pixels(one, pixels=POINTS, seed=SEED, mask=quarter(one)) for one in fields])
    maps = {title: embed(pixels.phi, seed=SEED) for title, pixels in drawn.items()}
    figure = feature_map(images[shown[0]].pixels, drawn["with"], maps, images.categories, stride=stride)
    return figure, [*compared.weights, f"{compared.data}, images {shown}"]


FIGURES: dict[str, Callable[[PanopticDataset], Drawn]] = {
    "figure_1": overall,
    "figure_2": architecture,
    **{f"figure_2_{part}": partial(architecture, here=part) for part in get_args(Part)},
    "figure_3": generator,
    "figure_4": auxiliary_tasks,
    "targets": targets,
    "prediction": prediction,
    "failures": missed_things,
    "masks": masks,
    "training": training,
    "four": four_scenes,
    "published": published,
    "ablations": ablations,
    "feature_metrics": feature_metrics,
    "speed": times,
}

COMPARISONS: dict[str, Callable[[Compared], Drawn]] = {"figure_5": effect_of_tasks, "feature_map": panoptic_feature}


def _on_meta(config: Config) -> SPINet:
    things, stuff = PRESETS["cityscapes_r50"].data.num_classes
    outputs = LabelSpace(config.objective.semantic_classes, things, stuff).num_outputs
    with torch.device("meta"):
        return SPINet.from_config(config.model, num_things=things, num_stuff=outputs, weights_follow=True)


def _targets(model: Model, sample: Sample) -> Targets:
    build = cast(TargetBuilder, model.target_builder())
    return build(sample.segment_map[None], [sample.labels], [sample.crowd], [SEED])


def _columns(path: Path) -> dict[str, list[float]]:
    """The columns of a log."""
    with path.open() as file:
        rows = list(csv.DictReader(file))
    return {name: [float(row[name]) for row in rows] for name in rows[0]}


def _file(path: Path) -> str:
    return f"{path.name}, sha256 {hashlib.sha256(path.read_bytes()).hexdigest()}"


def main(arguments: list[str]) -> None:
    """Writes the named figures, or all."""
    parser = argparse.ArgumentParser(prog="python -m spinet.figures", description="Writes the figures of the course.")
    known = ", ".join([*FIGURES, *COMPARISONS])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"figures to draw, of {known}; default: all")
    swept = (
        f"folder of a finished sweep of Table 3 for {' and '.join(COMPARISONS)}; default: the weights in the package"
    )
    parser.add_argument("--sweep", type=Path, metavar="FOLDER", help=swept)
    given = parser.parse_args(arguments)
    if unknown := [name for name in given.names if name not in FIGURES | COMPARISONS]:
        raise SystemExit(f"error: no figure {unknown[0]!r}; there are {', '.join(FIGURES | COMPARISONS)}")
    names = given.names or [*FIGURES, *COMPARISONS]
    try:
        runs = find_pairs(given.sweep) if given.sweep else None
        with tempfile.TemporaryDirectory() as folder:
            generate(folder, num_train=0, num_val=SCENES, size=SIZE, seed=SEED, progress=False)
            city = open_dataset(folder, "val")
            for name in names:
                try:
                    if name in FIGURES:
                        figure, sources = FIGURES[name](city)
                    else:
                        figure, sources = COMPARISONS[name](Compared.swept(runs) if runs else Compared.shipped(city))
                except MissingError as reason:
                    print(f"{name}: not changed: {reason}")
                    continue
                save(figure, FOLDER, name, sources=sources)
                print(FOLDER / f"{name}.png")
    except (ValueError, RuntimeError) as error:
        raise SystemExit(f"error: {error}") from None


if __name__ == "__main__":
    main(sys.argv[1:])
