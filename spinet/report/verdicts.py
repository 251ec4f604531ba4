"""§5.3, §5.4 The paper's claims about its parts, tested on our runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import optimize, stats

from spinet.experiments.campaigns import Campaign, Record
from spinet.experiments.tables import DEFORMABLE, INTEGRATION, LEVELS, LOSSES, TABLES, Row, Table
from spinet.figures.runs import row_dots
from spinet.report.grid import Grid
from spinet.report.tables import Section, run_conditions

LEVEL = 0.05
"""Probability that noise alone confirms or contradicts any claim of a campaign."""

POWER = 0.8
"""Probability of detecting a difference of size `Verdict.findable`."""

LEAST = 3
"""Smallest number of pairs of runs for judging a claim."""

METHOD = (
    "A claim holds or fails here if a paired t-test over the seeds shows a difference, with Holm's correction for the "
    f"number of claims (p < {LEVEL}). Otherwise the table names the true difference that the test finds with "
    f"probability {POWER} at the correction's strictest level, {LEVEL} divided by the number of claims. The interval "
    "is that of the mean over the seeds, on these validation images. The spread over images is its standard deviation "
    "over resampled sets of them (bootstrap)."
)


@dataclass(frozen=True)
class Claim:
    """The paper says that `better` reaches a higher PQ than `other`."""

    statement: str
    table: Table
    better: Row
    other: Row

    @property
    def published(self) -> float | None:
        """The difference in the paper, PQ."""
        better, other = (row.paper.pq if row.paper else None for row in (self.better, self.other))
        return None if better is None or other is None else better - other


CLAIMS = (
    Claim("The multi-class dice loss raises PQ (§3.4)", LOSSES, LOSSES.rows[1], LOSSES.rows[0]),
    Claim("The multi-class dice loss raises PQ with both auxiliary tasks", LOSSES, LOSSES.rows[4], LOSSES.rows[3]),
    Claim("The inter-class contour loss raises PQ (§4)", LOSSES, LOSSES.rows[2], LOSSES.rows[1]),
    Claim("The intra-class triplet loss raises PQ in addition (§4)", LOSSES, LOSSES.rows[4], LOSSES.rows[2]),
    Claim("Both auxiliary tasks together raise PQ (§4)", LOSSES, LOSSES.rows[4], LOSSES.rows[1]),
    Claim("One feature for things and stuff is better than two (§3.4)", INTEGRATION, *INTEGRATION.rows[::-1]),
    Claim("Levels 2 to 6 for both modules are better than 3 to 7 (§5.4)", LEVELS, LEVELS.rows[2], LEVELS.rows[0]),
    Claim("Levels 2 to 6 for the filters are better than 3 to 7 (§5.4)", LEVELS, LEVELS.rows[2], LEVELS.rows[1]),
    Claim("Deformable convolutions raise PQ (§5.3)", DEFORMABLE, *DEFORMABLE.rows[::-1]),
)


@dataclass(frozen=True)
class Verdict:
    """The test of a claim on the paired runs of a campaign; `differences` are PQ of better − other, per seed."""

    claim: Claim
    differences: tuple[float, ...]
    p: float  # paired t-test, corrected for all claims of the campaign (Holm)
    claims: int = 1  # number of claims of the campaign
    over_images: float | None = None  # standard deviation of the mean difference over resampled validation sets

    @property
    def mean(self) -> float:
        return float(np.mean(self.differences))

    @property
    def interval(self) -> tuple[float, float]:
        """95 % confidence interval of the mean."""
        half = stats.t.ppf(0.975, len(self.differences) - 1) * stats.sem(self.differences)
        return self.mean - half, self.mean + half

    @property
    def findable(self) -> float:
        """The true difference that as many pairs with this spread show with probability `POWER`, corrected."""
        spread = float(np.std(self.differences, ddof=1))
        return findable(spread, len(self.differences), level=LEVEL / self.claims)

    @property
    def words(self) -> str:
        if self.p < LEVEL:
            return "holds here" if self.mean > 0 else "fails here"
        return f"cannot be judged here: a difference of {self.findable:.1f} would have been found"

    @property
    def sentence(self) -> str:
        """Claim, verdict, and both differences, in one line."""
        published, (low, high) = self.claim.published, self.interval
        paper = "" if published is None else f"{published:+.1f} PQ in the paper, "
        return (
            f"{self.claim.statement}: {self.words} ({paper}{self.mean:+.1f} here, 95 % interval {low:+.1f} … "
            f"{high:+.1f}, {len(self.differences)} pairs of runs)"
        )


def pairs_of(campaign: Campaign, claim: Claim) -> list[tuple[Record, Record]]:
    """The records of both rows of a claim with equal seeds, the better row first."""
    runs = campaign.rows(claim.table)
    better, other = runs[claim.better.title], runs[claim.other.title]
    return [(better[seed], other[seed]) for seed in sorted(better.keys() & other.keys())]


def differences_of(pairs: Sequence[tuple[Record, Record]]) -> tuple[float, ...]:
    """The difference of PQ of each pair."""
    return tuple(better["metrics"]["PQ"] - other["metrics"]["PQ"] for better, other in pairs)


def spread_over_images(pairs: Sequence[tuple[Record, Record]]) -> float | None:
    """Standard deviation of the mean difference of PQ over resampled validation sets.

    None if a record has none, because it is older.
    """
    samples = [[record["metrics"].get("bootstrap", {}).get("PQ") for record in pair] for pair in pairs]
    if not samples or any(values is None for pair in samples for values in pair):
        return None
    return float(np.std(np.mean([np.subtract(better, other) for better, other in samples], axis=0)))


def findable(spread: float, pairs: int, *, level: float = LEVEL, power: float = POWER) -> float:
    """The true mean difference that a two-sided paired t-test finds with probability `power`.

    Args:
        spread: standard deviation of the differences.
        pairs: number of differences, at least 2.
    """
    if spread == 0:
        return 0.0
    freedom = pairs - 1
    bound = stats.t.ppf(1 - level / 2, freedom)

    def gain(effect: float) -> float:
        # only in the direction of the difference; the other side is very unlikely
        return float(stats.nct.sf(bound, freedom, effect * np.sqrt(pairs))) - power

    return spread * float(optimize.brentq(gain, 0, 100))  # pyright: ignore[reportArgumentType]


def holm(p: Sequence[float]) -> list[float]:
    """p-values corrected for their number by Holm's step-down procedure, in the given order."""
    order = np.argsort(p)
    scaled = np.asarray(p)[order] * np.arange(len(p), 0, -1)
    corrected = np.empty(len(p))
    corrected[order] = np.minimum(1, np.maximum.accumulate(scaled))
    return corrected.tolist()


def verdicts(campaign: Campaign) -> list[Verdict]:
    """The verdicts of a campaign on each claim with at least `LEAST` pairs of runs."""
    judged, values = [], []
    for claim in CLAIMS:
        pairs = pairs_of(campaign, claim)
        differences = differences_of(pairs)
        if len(differences) >= LEAST and np.ptp(differences) > 0:
            judged.append((claim, differences, spread_over_images(pairs)))
            values.append(float(stats.ttest_1samp(differences, 0).pvalue))  # pyright: ignore[reportAttributeAccessIssue]
    return [
        Verdict(claim, found, p, len(judged), images)
        for (claim, found, images), p in zip(judged, holm(values), strict=True)
    ]


def verdict_section(campaign: Campaign) -> Section | None:
    """The verdicts of a campaign with their conditions; None if no claim can be judged."""
    found = verdicts(campaign)
    if not found:
        return None
    judged = {claim.table.group for claim in (verdict.claim for verdict in found)}
    records = [
        record
        for group in sorted(judged)
        for of_row in campaign.rows(TABLES[group]).values()
        for record in of_row.values()
    ]
    return Section(
        title=f"The paper's claims, on {campaign.title}",
        conditions=f"{run_conditions(records)} {METHOD}",
        grids={"Verdicts": verdict_grid(found, campaign.data)},
        figure=row_dots(
            {verdict.claim.statement: verdict.differences for verdict in found},
            label=f"difference of PQ, {campaign.data} val",
            reference=0.0,
        ),
    )


def verdict_grid(found: Sequence[Verdict], data: str) -> Grid:
    """The verdicts as a table."""
    columns = [("", "claim of the paper"), ("", "paper, PQ"), (f"{data} val", "PQ"), (f"{data} val", "95 % interval")]
    columns += [(f"{data} val", name) for name in ("pairs", "p (Holm)", "spread over images")] + [("", "verdict")]
    rows = []
    for verdict in found:
        published, (low, high) = verdict.claim.published, verdict.interval
        rows.append(
            [
                verdict.claim.statement,
                "–" if published is None else f"{published:+.1f}",
                f"{verdict.mean:+.1f}",
                f"{low:+.1f} … {high:+.1f}",
                str(len(verdict.differences)),
                f"{verdict.p:.2g}",
                "–" if verdict.over_images is None else f"{verdict.over_images:.1f}",
                verdict.words,
            ]
        )
    return Grid(columns, rows)
