"""Verdicts on the paper's claims: statistics compared with known values, and the resulting text."""

from __future__ import annotations

import numpy as np
import pytest
from test_report import losses

from spinet.experiments.campaigns import newest
from spinet.report import find_campaigns
from spinet.report.effects import effect_sections
from spinet.report.power import pairs_needed, power_sections, precision
from spinet.report.verdicts import CLAIMS, Claim, Verdict, findable, holm, verdict_grid, verdicts


def test_holm():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def test_findable_difference():
    # textbook example: ten pairs detect an effect of one standard deviation with a power of 0.803
    assert findable(1.0, 10) == pytest.approx(1.0, abs=0.01)
    assert findable(3.0, 10) == pytest.approx(3.0 * findable(1.0, 10))
    assert findable(0.0, 5) == 0.0
    random = np.random.default_rng(0)
    draws = random.normal(findable(2.0, 5), 2.0, (20_000, 5))
    t = draws.mean(1) / (draws.std(1, ddof=1) / np.sqrt(5))
    assert (abs(t) > 2.776).mean() == pytest.approx(0.8, abs=0.01)


def test_the_spread_over_images_is_that_of_the_difference():
    records = losses({"dice": [20.0, 21.0, 22.0], "full": [22.0, 23.1, 23.9]})
    (campaign,) = find_campaigns(records)
    assert verdicts(campaign)[0].over_images is None  # older records have no resampled sets
    for record in records:
        # the same images are easy for both rows, so that only their difference counts: -1, 0, 1
        extra = [-1.0, 0.0, 1.0] if record["experiment"] == "full" else [0.0, 0.0, 0.0]
        record["metrics"]["bootstrap"] = {"PQ": np.add([10.0, 30.0, 50.0], extra).tolist()}
    (campaign,) = find_campaigns(records)
    assert verdicts(campaign)[0].over_images == pytest.approx(np.std([-1, 0, 1]))
    found = precision(campaign)
    assert found is not None
    assert found.images == pytest.approx(np.mean([np.std([9, 30, 51]), np.std([10, 30, 50])]), abs=0.5)
    assert found.difference_images == pytest.approx(np.std([-1, 0, 1]))


def test_power_over_the_length_of_training():
    assert pairs_needed(1.0) == 10  # the same textbook example
    assert pairs_needed(0.0) == 3
    assert pairs_needed(100.0) is None
    short = losses({"no-losses": [20.0, 21.0, 22.0], "dice": [22.0, 23.1, 23.9], "full": [22.1, 23.0, 24.2]})
    long = losses({"full": [31.0, 31.5, 32.0, 32.5]})
    for record in long:
        for config in (record["base"], record["config"]):
            config["train"] |= {"iterations": 3200, "evaluate_every": 800}
    few = losses({"full": [1.0, 2.0]}, data="nuclei")
    campaigns = find_campaigns([*short, *long, *few])
    by_length = {found.iterations: found for campaign in campaigns if (found := precision(campaign))}
    assert by_length[1600].spread == pytest.approx(np.std([22.1, 23.0, 24.2], ddof=1))
    assert by_length[1600].pairs == 6
    # the differences are 2.0, 2.1, 1.9 and 0.1, -0.1, 0.3, with 2 degrees of freedom each
    assert by_length[1600].difference == pytest.approx(np.sqrt((0.1**2 + 0.2**2) / 2))
    assert by_length[3200].difference is None
    assert by_length[3200].assumed == pytest.approx(np.sqrt(2) * np.std([31, 31.5, 32, 32.5], ddof=1))
    (section,) = power_sections(campaigns)
    assert [row[:2] for row in section.grids["Power"].rows] == [["1600", "3"], ["3200", "4"]]
    assert section.grids["Power"].rows[0][8:] == ["3", "1.5"]  # 3 pairs of runs of a quarter of an hour


def test_the_titles_of_campaigns_say_where_they_differ():
    quick, slow, other = (losses({"full": [1.0, 2.0]}, data=data) for data in ("city", "city", "nuclei"))
    for record in slow:
        record["created"] = "2999-01-01T00:00:00+00:00"
        for config in (record["base"], record["config"]):
            config["train"] |= {"warmup": 100}
    assert [campaign.title for campaign in find_campaigns([*quick, *other])] == [
        "city, 1600 iterations",
        "nuclei, 1600 iterations",
    ]
    assert {campaign.title for campaign in find_campaigns([*quick, *slow])} == {
        "city, 1600 iterations, train.warmup 50",
        "city, 1600 iterations, train.warmup 100",
    }
    (current,) = newest(find_campaigns([*quick, *slow])).values()
    assert current.base["train"]["warmup"] == 100
    longer = losses({"full": [1.0, 2.0]}, data="city")
    for record in longer:
        for config in (record["base"], record["config"]):
            config["train"] |= {"warmup": 200, "batch_size": 8}
    assert {campaign.title for campaign in find_campaigns([*quick, *slow, *longer])} == {
        "city, 1600 iterations, train.warmup 50",
        "city, 1600 iterations, train.warmup 100",
        "city, 1600 iterations, train.batch_size 8",
    }
    again = [record | {"init": {"file": "street.safetensors", "sha256": "0123456789"}} for record in quick]
    assert {campaign.title for campaign in find_campaigns([*quick, *again])} == {
        "city, 1600 iterations, from no other run",
        "city, 1600 iterations, from street.safetensors (01234567)",
    }
    moved = [record | {"data": record["data"] | {"fingerprint": "f" * 64}} for record in quick]
    assert "city, 1600 iterations, data ffffffff" in {campaign.title for campaign in find_campaigns([*quick, *moved])}


def test_effects_of_the_losses_by_class_and_by_size():
    records = losses({"dice": [20.0, 21.0, 22.0], "full": [22.0, 23.1, 23.9]})
    for record in records:
        more = record["experiment"] == "full"
        record["metrics"]["per_class"] = {
            "24": {"name": "person", "tp": 3, "fn": 1, "pq": 0.5 + 0.1 * more},
            "31": {"name": "train", "tp": 0, "fn": 0, "pq": 0.0},
        }
        record["metrics"]["sizes"] = {
            "0": {"number": 0, "found": 0},
            "8": {"number": 10, "found": 2 + more * record["seed"]},
            "64": {"number": 4, "found": 4},
        }
    (section,) = effect_sections(find_campaigns(records))
    grid = section.grids["Effects, percent"]
    assert grid.columns[1:] == [("", "(M.C.D + L_inter + L_intra) − (M.C.D)")]
    assert grid.rows == [
        ["person", "+10.0 ± 0.0"],
        ["things of 8 to 64 px", "+10.0 ± 10.0"],
        ["things from 64 px", "+0.0 ± 0.0"],
    ]
    assert effect_sections(find_campaigns(losses({"full": [1.0, 2.0, 3.0]}))) == []


def test_every_claim_is_one_of_the_paper():
    for claim in CLAIMS:
        assert claim.published is not None, claim.statement
        assert claim.published > 0, claim.statement
        assert claim.better in claim.table.rows
        assert claim.other in claim.table.rows


@pytest.mark.parametrize(
    ("differences", "p", "words"),
    [
        ((2.0, 2.1, 1.9), 0.002, "holds here"),
        ((-2.0, -2.1, -1.9), 0.002, "fails here"),
        ((1.0, -1.0, 3.0), 0.96, "cannot be judged here: a difference of 6.5 would have been found"),
    ],
)
def test_words_follow_from_the_numbers(differences: tuple[float, ...], p: float, words: str):
    verdict = Verdict(CLAIMS[0], differences, p)
    assert verdict.words == words
    low, high = verdict.interval
    assert low < np.mean(differences) < high
    assert verdict.sentence == (
        f"{CLAIMS[0].statement}: {words} (+0.5 PQ in the paper, {np.mean(differences):+.1f} here, 95 % interval "
        f"{low:+.1f} … {high:+.1f}, 3 pairs of runs)"
    )


def test_claims_with_enough_pairs_are_judged_and_corrected_together():
    scores = {
        "no-losses": [20.0, 21.0, 22.0],
        "dice": [22.0, 23.1, 23.9],
        "full": [22.1, 23.0, 24.1],
        "dice-inter": [20.0],
    }
    (campaign,) = find_campaigns(losses(scores))
    dice, tasks = verdicts(campaign)
    assert dice.claim == CLAIMS[0]
    assert dice.differences == pytest.approx((2.0, 2.1, 1.9))
    # single test: p = 0.00083 (t = 34.64, 2 degrees of freedom); the smaller of two p is doubled
    assert dice.p == pytest.approx(2 * 0.000832, rel=0.01)
    assert tasks.claim.statement.startswith("Both auxiliary tasks")
    assert tasks.differences == pytest.approx((0.1, -0.1, 0.2))
    grid = verdict_grid([dice, tasks], "streets")
    assert [row[-1].split(":")[0] for row in grid.rows] == ["holds here", "cannot be judged here"]
    assert grid.rows[0][1:5] == ["+0.5", "+2.0", "+1.8 … +2.2", "3"]


def test_without_pairs_there_is_no_verdict():
    (campaign,) = find_campaigns(losses({"no-losses": [20.0, 21.0], "dice": [20.5, 21.3]}))
    assert verdicts(campaign) == []


def test_a_claim_without_published_values_says_so():
    row = CLAIMS[0].other
    assert Claim("of nobody", CLAIMS[0].table, type(row)("one", "one"), row).published is None
