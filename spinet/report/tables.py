"""§5.4 The paper's tables with our rows: means and spreads over seeds, and tests whether differences exceed noise."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, stdev
from typing import Any

import numpy as np
from scipy import stats

from spinet.config import from_dict
from spinet.config.overrides import setting
from spinet.experiments.campaigns import Campaign, Record
from spinet.experiments.tables import (
    FACTORS,
    LOSSES,
    PAPER_PARTS,
    RATES,
    SYSTEMS,
    TABLES,
    WITH_TASKS,
    WITHOUT_TASKS,
    Row,
    Table,
)
from spinet.figures.runs import row_dots
from spinet.figures.style import Figure
from spinet.paper import Quality
from spinet.report.grid import Grid
from spinet.report.single import conditions

LEAST = 3
"""Smallest number of runs for judging a difference."""

LEVEL = 0.05
"""Significance level: a difference with a smaller p is called more than noise."""

QUALITIES = {"PQ": "pq", "PQ_th": "pq_things", "PQ_st": "pq_stuff"}
FEATURES = {
    "silhouette_classes": "silhouette, classes",
    "silhouette_instances": "silhouette, instances",
    "distance_ratio": "distance within / between instances",
    "triplet_accuracy": "triplets in order",
    "pixel_accuracy": "pixels nearest their instance",
    "border_f": "F of class borders",
    "contour_f": "F of contour head",
}
SMALL_IS_GOOD = {"distance_ratio"}

Runs = Mapping[str, Mapping[int, Record]]
"""A table's records by row title and seed."""


@dataclass(frozen=True)
class Section:
    """A table on one data set."""

    title: str
    conditions: str
    grids: dict[str, Grid]
    figure: Figure

    def markdown(self) -> str:
        parts = [f"**{name}**\n\n{grid.markdown()}" for name, grid in self.grids.items()]
        return "\n".join([f"## {self.title}\n\n{self.conditions}\n", *parts])


def table_sections(campaign: Campaign) -> list[Section]:
    """The tables with at least two different rows in a campaign, and a run that no table before has shown."""
    sections: list[Section] = []
    shown: set[str] = set()
    for table in TABLES.values():
        runs = campaign.rows(table)
        # rows with equal settings in this campaign share their runs
        different = {tuple(record["created"] for record in of_row.values()) for of_row in runs.values() if of_row}
        new = set().union(*different) - shown
        if table is not RATES and len(different) >= 2 and new:
            sections.append(_section(campaign, table, runs))
        if table is RATES or len(different) >= 2:  # the search stands beside the systems
            shown |= new
    return sections


def _section(campaign: Campaign, table: Table, runs: Runs) -> Section:
    shown = replace(table, rows=tuple(row for row in table.rows if row.paper or runs[row.title]))
    grids = {"Scores": scores(shown, runs, campaign.data), "Differences": gaps(shown, runs, campaign.data)}
    if table is LOSSES and any("features" in r["metrics"] for records in runs.values() for r in records.values()):
        grids["The Panoptic-Feature (§4)"] = features(runs)
        grids["Effect of the auxiliary tasks on it"] = feature_gaps(runs)
    if table is SYSTEMS:
        grids["Search of the learning rate: PQ, with the best in brackets"] = rates(campaign)
    records = [record for of_row in runs.values() for record in of_row.values()]
    notes = [run_conditions(records)]
    if table is SYSTEMS:
        notes.append("Each system has its own best learning rate of the search below.")
        if untried := campaign.untried():
            notes.append(f"A rate beside the best has not run for {', '.join(untried)}.")
        notes.append(_extras(campaign))
    if hidden := [row.title for row in table.rows if row not in shown.rows]:
        notes.append(f"Not run: {'; '.join(hidden)}.")
    return Section(
        title=f"{table.section}: {table.title[0].lower()}{table.title[1:]}, on {campaign.title}",
        conditions=" ".join(notes),
        grids=grids,
        figure=row_dots(
            {title: _known(record["metrics"]["PQ"] for record in of_row.values()) for title, of_row in runs.items()},
            label=f"PQ, {campaign.data} val, %",
        ),
    )


def run_conditions(records: Sequence[Record]) -> str:
    """The common conditions of a table's runs, and their devices."""
    seeds = sorted({record["seed"] for record in records})
    commits = sorted({f"{str(r['commit'])[:8]}{' with changes' if r['dirty'] else ''}" for r in records})
    devices = sorted({record["device"]["name"] for record in records})
    minutes = fmean(60 * record["hours"] for record in records)
    return (
        f"{conditions(records[0])}; {minutes:.1f} minutes of training per run, on {', '.join(devices)}; seeds "
        f"{', '.join(map(str, seeds))}; source {', '.join(commits)}."
    )


def _extras(campaign: Campaign) -> str:
    """Settings of SPINet that neither the paper nor the other systems have."""

    extras = [f"{name} {ours}" for name, (ours, _) in beyond_paper(campaign.base).items()]
    return f"Only SPINet has {', '.join(extras)}." if extras else "SPINet has no settings beyond the paper."


def beyond_paper(config: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """The settings `PAPER_PARTS` of a stored configuration that differ from the paper's preset, with both values."""
    start = from_dict(dict(config))
    pairs = {name: (setting(start, name), value) for name, value in PAPER_PARTS.items()}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def scores(table: Table, runs: Runs, data: str) -> Grid:
    """The paper's values, and ours as mean ± standard deviation over the runs."""
    published = [name for name, field in QUALITIES.items() if any(_published(row, field) for row in table.rows)]
    ours = [*QUALITIES, "AP", "mIoU"]
    columns = [("", "row"), *((f"Paper, {table.measured_on}", name) for name in published)]
    columns += [(f"Ours, {data} val", name) for name in (*ours, "n")]
    rows = []
    for row in table.rows:
        records = runs[row.title].values()
        paper = [_number(_published(row, QUALITIES[name])) for name in published]
        measured = [spread([record["metrics"][name] for record in records]) for name in ours]
        rows.append([row.title, *paper, *measured, str(len(records))])
    return Grid(columns, rows)


def rates(campaign: Campaign) -> Grid:
    """PQ of each system at each learning rate, the mean over its seeds."""
    rate = campaign.base["train"]["learning_rate"]
    search = campaign.search()
    tried = [factor for factor in FACTORS if any(factor in scores for scores in search.values())]
    rows = []
    for title, scores in search.items():
        best = max(scores.values())
        shown = {factor: f"[{pq:.1f}]" if pq == best else f"{pq:.1f}" for factor, pq in scores.items()}
        rows.append([title, *(shown.get(factor, "–") for factor in tried)])
    return Grid([("", "row"), *(("", f"rate {factor * rate:g}") for factor in tried)], rows)


def gaps(table: Table, runs: Runs, data: str) -> Grid:
    """Differences of each row to the first row with runs, in the paper and here, with tests."""
    published = [name for name, field in QUALITIES.items() if any(_published(row, field) for row in table.rows)]
    first, *others = table.rows[next(i for i, row in enumerate(table.rows) if runs[row.title]) :]
    columns = [("", f"row − “{first.title}”"), *((f"Paper, {table.measured_on}", name) for name in published)]
    columns += [(f"Ours, {data} val", name) for name in QUALITIES]
    rows = []
    for row in others:
        start, records = runs[first.title], runs[row.title]
        paper = []
        for name in published:
            value, before = (_published(r, QUALITIES[name]) for r in (row, first))
            paper.append("–" if value is None or before is None else f"{value - before:+.1f}")
        seeds = sorted(records.keys() & start.keys())
        pairs = [[[r[seed]["metrics"][name] for seed in seeds] for r in (records, start)] for name in QUALITIES]
        rows.append([row.title, *paper, *(compared(ours, before) for ours, before in pairs)])
    return Grid(columns, rows)


def features(runs: Runs) -> Grid:
    """Results of `clustering.feature_metrics` for the runs of each row."""
    measured = {title: [r["metrics"].get("features", {}) for r in of_row.values()] for title, of_row in runs.items()}
    rows = [
        [title, *(spread(_known(found.get(name) for found in of_row), 3) for name in FEATURES)]
        for title, of_row in measured.items()
    ]
    return Grid([("", "row"), *(("", label) for label in FEATURES.values())], rows)


def feature_gaps(runs: Runs) -> Grid:
    """The same without and with both auxiliary tasks, and their differences for equal seeds."""
    without, with_tasks = (runs[row.title] for row in (WITHOUT_TASKS, WITH_TASKS))
    rows = []
    for name, label in FEATURES.items():
        start, ours = (
            {seed: record["metrics"].get("features", {}).get(name) for seed, record in of_row.items()}
            for of_row in (without, with_tasks)
        )
        seeds = sorted(start.keys() & ours.keys())
        gap = compared(
            [ours[seed] for seed in seeds], [start[seed] for seed in seeds], digits=3, falling=name in SMALL_IS_GOOD
        )
        rows.append([label, *(spread(list(of_row.values()), 3) for of_row in (start, ours)), gap])
    columns = ("measure", "without auxiliary tasks", "with them", "difference")
    return Grid([("", name) for name in columns], rows)


def spread(values: Sequence[float | None], digits: int = 1) -> str:
    """Mean ± standard deviation; "–" if a value is missing."""
    known = _known(values)
    if not known or len(known) < len(values):
        return "–"
    mean = f"{fmean(known):.{digits}f}"
    return mean if len(known) == 1 else f"{mean} ± {stdev(known):.{digits}f}"


def compared(
    ours: Sequence[float | None], start: Sequence[float | None], *, digits: int = 1, falling: bool = False
) -> str:
    """The mean difference between paired runs with its 95 % interval, and whether it is more than noise, as text.

    Args:
        ours: values of the runs.
        start: values of the runs that they are paired with.
        digits: digits after the decimal point.
        falling: whether smaller values are better.
    """
    ours, start = _known(ours), _known(start)
    if not ours or len(ours) != len(start):
        return "–"
    difference = np.subtract(ours, start)
    mean = f"{difference.mean():+.{digits}f}"
    if len(difference) < LEAST:
        return f"{mean}; too few runs to judge"
    if np.ptp(difference) == 0:
        return f"{mean} in every run"
    test = stats.ttest_rel(ours, start)
    low, high = test.confidence_interval(0.95)
    direction = "better" if (difference.mean() > 0) != falling else "worse"
    verdict = f"{direction}, more than noise" if test.pvalue < LEVEL else "no more than noise"
    return f"{mean} ({low:+.{digits}f} … {high:+.{digits}f}); {verdict} (p = {test.pvalue:.2g})"


def _known(values: Iterable[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def _published(row: Row, field: str) -> float | None:
    return getattr(row.paper or Quality(), field)


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"
