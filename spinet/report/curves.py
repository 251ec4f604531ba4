"""§5.3 Who learns faster: PQ of the systems over the iterations of training."""

from __future__ import annotations

from collections.abc import Iterable
from statistics import fmean

import pandas as pd

from spinet.experiments.campaigns import Campaign
from spinet.experiments.tables import RATES
from spinet.figures.plots import line
from spinet.report.grid import Grid
from spinet.report.tables import Runs, Section, run_conditions, spread


def curves(runs: Runs) -> dict[str, dict[int, list[float]]]:
    """PQ of all runs by row title and iteration: the evaluations during training, and the last one.

    Iterations that not all runs of a row were evaluated at are left out.
    """
    found = {}
    for title, of_row in runs.items():
        points: dict[int, list[float]] = {}
        for record in of_row.values():
            scores = {int(done): one["PQ"] for done, one in record.get("evaluations", {}).items()}
            for done, score in {**scores, record["iterations"]: record["metrics"]["PQ"]}.items():
                points.setdefault(done, []).append(score)
        found[title] = {done: points[done] for done in sorted(points) if len(points[done]) == len(of_row)}
    return found


def curve_sections(campaigns: Iterable[Campaign]) -> list[Section]:
    """One section for each campaign that evaluated at least two rows of `RATES` during training."""
    sections = []
    for campaign in campaigns:
        runs = campaign.rows(RATES)
        found = {title: points for title, points in curves(runs).items() if len(points) >= 2}
        if len(found) < 2:
            continue
        iterations = sorted({done for points in found.values() for done in points})
        columns = [("", name) for name in ("row", *map(str, iterations))]
        rows = [[title, *(spread(points.get(done, [])) for done in iterations)] for title, points in found.items()]
        means = {title: {done: fmean(scores) for done, scores in points.items()} for title, points in found.items()}
        used = run_conditions([record for title in found for record in runs[title].values()])
        sections.append(
            Section(
                title=f"PQ over the iterations of training, on {campaign.title}",
                conditions=(
                    f"{used} The learning rate falls over the whole run, so an earlier score is below that of a "
                    "shorter run."
                ),
                grids={"PQ after so many iterations": Grid(columns, rows)},
                figure=line(
                    pd.DataFrame(means).sort_index(), xlabel="iterations", ylabel=f"PQ, {campaign.data} val, %"
                ),
            )
        )
    return sections
