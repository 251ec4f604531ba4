"""§5.4 How small a difference of PQ can be found: the spread of finished runs at several lengths of training."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

import numpy as np

from spinet.experiments.campaigns import Campaign
from spinet.experiments.tables import WITH_TASKS
from spinet.figures.runs import findable_lines
from spinet.report.grid import Grid
from spinet.report.tables import Section
from spinet.report.verdicts import (
    CLAIMS,
    LEAST,
    LEVEL,
    POWER,
    differences_of,
    findable,
    pairs_of,
    spread_over_images,
)

WANTED = 1.0
"""The difference to find, PQ: the paper's are 0.5 to 1.2."""

PAIRS = (3, 5, 10)
"""Numbers of pairs of runs in the figure."""

MOST = 200
"""Largest number of pairs that `pairs_needed` tries."""

LENGTH = {"iterations", "checkpoint_every", "evaluate_every", "snapshots"}
"""Settings of training that may differ within a section: the length, and what is saved and measured on the way."""


@dataclass(frozen=True)
class Precision:
    """The spread of the runs of one length; differences are those of the paper's claims, for equal seeds."""

    iterations: int
    runs: int  # of the row with most seeds
    mean: float  # PQ of that row
    spread: float  # standard deviation of its PQ over the seeds
    images: float | None  # standard deviation of a run's PQ over resampled validation sets
    pairs: int  # of all differences
    difference: float | None  # standard deviation of a difference over the seeds, pooled over the claims
    difference_images: float | None  # standard deviation of the mean of a difference over resampled validation sets
    hours: float  # of training, per run

    @property
    def assumed(self) -> float:
        """The spread of a difference; without pairs that of two independent runs."""
        return self.difference if self.difference is not None else self.spread * np.sqrt(2)


def pairs_needed(spread: float, wanted: float = WANTED) -> int | None:
    """The smallest number of pairs of runs that finds a true difference with probability `POWER`; None above `MOST`."""
    return next((n for n in range(LEAST, MOST + 1) if findable(spread, n) <= wanted), None)


def precision(campaign: Campaign) -> Precision | None:
    """The spread of a campaign's runs; None if no row has `LEAST` seeds."""
    rows = [WITH_TASKS, *(row for claim in CLAIMS for row in (claim.better, claim.other))]
    most = max(map(campaign.runs, rows), key=len)  # the first of those with equally many
    if len(most) < LEAST:
        return None
    scores = [record["metrics"]["PQ"] for record in most.values()]
    samples = [record["metrics"].get("bootstrap", {}).get("PQ") for record in most.values()]
    paired = [pairs for claim in CLAIMS if len(pairs := pairs_of(campaign, claim)) >= LEAST]
    differences = [differences_of(pairs) for pairs in paired]
    over_images = [spread_over_images(pairs) for pairs in paired]
    return Precision(
        iterations=campaign.base["train"]["iterations"],
        runs=len(most),
        mean=fmean(scores),
        spread=stdev(scores),
        images=None if None in samples else fmean(float(np.std(values)) for values in samples),
        pairs=sum(map(len, differences)),
        difference=_pooled(differences) if differences else None,
        difference_images=None if not over_images or None in over_images else fmean(filter(None, over_images)),
        hours=fmean(record["hours"] for record in most.values()),
    )


def _pooled(groups: Sequence[Sequence[float]]) -> float:
    """The standard deviation within groups, weighted by their degrees of freedom."""
    freedom = [len(group) - 1 for group in groups]
    return float(np.sqrt(sum(np.var(g, ddof=1) * n for g, n in zip(groups, freedom, strict=True)) / sum(freedom)))


def power_sections(campaigns: Iterable[Campaign]) -> list[Section]:
    """One section for each group of campaigns that differ only in the length of training."""
    groups: dict[str, list[tuple[Campaign, Precision]]] = {}
    for campaign in campaigns:
        schedule = {name: value for name, value in campaign.base["train"].items() if name not in LENGTH}
        key = json.dumps([campaign.records[0]["data"]["fingerprint"], {**campaign.base, "train": schedule}])
        if found := precision(campaign):
            groups.setdefault(key, []).append((campaign, found))
    sections = []
    for group in groups.values():
        group.sort(key=lambda one: one[1].iterations)
        first, found = group[0][0], [one for _, one in group]
        crop = first.base["input"]["crop"]
        images = f"crops of {' × '.join(map(str, crop))} px" if crop else "whole images"
        sections.append(
            Section(
                title=first.told_apart(f"What can be found on {first.data}, {images}"),
                conditions=(
                    f"The spread of the runs, and the difference of PQ that a paired t-test (level {LEVEL}) finds with "
                    f"probability {POWER}. Without pairs of runs the spread of a difference is taken as that of two "
                    "independent runs. The spread over images is the standard deviation over resampled validation sets."
                ),
                grids={"Power": power_grid(found)},
                figure=findable_lines(
                    {n: {one.iterations: findable(one.assumed, n) for one in found} for n in PAIRS}, wanted=WANTED
                ),
            )
        )
    return sections


def power_grid(found: Sequence[Precision]) -> Grid:
    """One row per length of training."""
    seeds, images, test = "spread over seeds", "spread over images", "paired t-test"
    columns = [
        *(("", name) for name in ("iterations", "runs", "PQ")),
        *((seeds, name) for name in ("of a run", "of a difference")),
        *((images, name) for name in ("of a run", "of a mean difference")),
        *((test, name) for name in ("5 pairs find", f"pairs for {WANTED:g} PQ", "core-hours for them")),
    ]
    rows = []
    for one in found:
        needed = pairs_needed(one.assumed)
        rows.append(
            [
                *(str(one.iterations), str(one.runs), f"{one.mean:.1f}", f"{one.spread:.2f}"),
                *(_number(value) for value in (one.difference, one.images, one.difference_images)),
                f"{findable(one.assumed, 5):.1f}",
                f"more than {MOST}" if needed is None else str(needed),
                "–" if needed is None else f"{2 * needed * one.hours:.1f}",
            ]
        )
    return Grid(columns, rows)


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"
