"""§5.4 What each loss changes: the difference of PQ of each class, and of the share of things found by their size."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import zip_longest
from statistics import fmean, stdev
from typing import Any

from spinet.experiments.campaigns import Campaign
from spinet.experiments.tables import LOSSES
from spinet.figures.runs import effect_map
from spinet.report.grid import Grid
from spinet.report.tables import Section
from spinet.report.verdicts import CLAIMS, LEAST, Claim, pairs_of

Effects = dict[str, list[float]]
"""Differences in percent, one per pair of runs, by the name of a class or of a size."""


def effect_sections(campaigns: Iterable[Campaign]) -> list[Section]:
    """One section for each campaign with enough pairs of runs for a claim on the losses."""
    sections = []
    for campaign in campaigns:
        found = {
            short_name(claim): of
            for claim in CLAIMS
            if claim.table is LOSSES and len(pairs := pairs_of(campaign, claim)) >= LEAST
            if (of := effects([(a["metrics"], b["metrics"]) for a, b in pairs]))
        }
        if not found:
            continue
        sections.append(
            Section(
                title=f"What each loss changes on {campaign.title}",
                conditions=(
                    "Differences for equal seeds, mean ± standard deviation over the seeds: PQ of each class, then the "
                    "share of the things that are found (IoU above 0.5), by the square root of their area. With so "
                    "many numbers some are large by chance."
                ),
                grids={"Effects, percent": effect_grid(found)},
                figure=effect_map(
                    {name: {row: fmean(values) for row, values in of.items()} for name, of in found.items()}
                ),
            )
        )
    return sections


def short_name(claim: Claim) -> str:
    """The two rows that a claim compares."""
    return f"({claim.better.title}) − ({claim.other.title})"


def effects(pairs: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]]) -> Effects:
    """The differences between pairs of metrics; a class or a size that does not occur is left out."""
    found: Effects = {}
    for better, other in pairs:
        for key, one in better.get("per_class", {}).items():
            if one["tp"] + one["fn"]:
                found.setdefault(one["name"], []).append(100 * (one["pq"] - other["per_class"][key]["pq"]))
        sizes = better.get("sizes", {})
        for low, high in zip_longest(sizes, [*sizes][1:]):
            if number := sizes[low]["number"]:
                name = f"things from {low} px" if high is None else f"things of {low} to {high} px"
                difference = sizes[low]["found"] - other["sizes"][low]["found"]
                found.setdefault(name, []).append(100 * difference / number)
    return found


def effect_grid(found: Mapping[str, Effects]) -> Grid:
    """One row per class or size, one column per pair of rows."""
    names = dict.fromkeys(name for of in found.values() for name in of)
    rows = [
        [name, *(f"{fmean(values):+.1f} ± {stdev(values):.1f}" for of in found.values() for values in [of[name]])]
        for name in names
    ]
    return Grid([("", "class or size"), *(("", name) for name in found)], rows)
