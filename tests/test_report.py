"""The report: tables only from records, the paper's values separate from ours, and text that matches the numbers."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from spinet.config import PRESETS, ConfigError, to_dict
from spinet.config.overrides import override
from spinet.experiments.tables import LOSSES, RATES, TABLES, Row
from spinet.paper import TABLE_3
from spinet.records import new_record, write_record
from spinet.report import find_campaigns, read_runs, report, table_sections
from spinet.report.curves import curve_sections
from spinet.report.page import environment, not_run, settings
from spinet.report.tables import beyond_paper, compared, spread

SCORES = {"PQ_th": 10.0, "PQ_st": 30.0, "AP": 5.0, "mIoU": 40.0}


def record_of(row: Row, seed: int, pq: float | None, *, data: str = "streets", **changed: Any) -> dict[str, Any]:
    base = override(PRESETS["tiny"], {"train.seed": seed})
    record = new_record(
        experiment=row.name,
        seed=seed,
        config=to_dict(override(base, row.changes(base.config)).config),
        data={"name": data, "splits": {"train": 6, "val": 2}, "fingerprint": data},
        iterations=800,
        hours=0.25,
        metrics={**SCORES, "PQ": pq, "features": {"distance_ratio": 0.25 + seed}},
        device="a machine",
    )
    return {**record, "base": to_dict(base.config), "backbone_weights": "none", **changed}


def losses(scores: dict[str, list[float]], **changed: Any) -> list[dict[str, Any]]:
    """Records of rows of Table 3, one per seed."""
    rows = {row.name: row for row in LOSSES.rows}
    return [record_of(rows[name], seed, pq, **changed) for name, of in scores.items() for seed, pq in enumerate(of)]


def write(records: list[dict[str, Any]], folder: Path) -> Path:
    for index, record in enumerate(records):
        write_record(record, folder / f"{index}.json")
    return folder


FULL = {"no-losses": [20.0, 21.0, 22.0], "dice": [20.5, 21.3, 22.7], "full": [22.0, 23.1, 23.9]}


def test_spread():
    assert spread([]) == "–"
    assert spread([20.0]) == "20.0"
    assert spread([20.0, 22.0]) == "21.0 ± 1.4"
    assert spread([20.0, None]) == "–"
    assert spread([0.5, 0.25], digits=3) == "0.375 ± 0.177"


def test_differences_are_paired_and_said_in_words():
    assert compared([], []) == "–"
    assert compared([21.0, None], [20.0, 20.0]) == "–"
    assert compared([21.0, 22.0], [20.0, 20.0]) == "+1.5; too few runs to judge"
    assert compared([21.0, 22.0, 23.0], [20.0, 21.0, 22.0]) == "+1.0 in every run"
    # t for the differences 2.0, 2.1, 1.9 is 2 / (0.1 / √3) = 34.64; with 2 degrees of freedom p = 0.00083, and the 95 %
    # interval is 2 ± 4.303 · 0.0577
    start = [20.0, 30.0, 40.0]
    assert compared([22.0, 32.1, 41.9], start) == "+2.0 (+1.8 … +2.2); better, more than noise (p = 0.00083)"
    assert compared([18.0, 27.9, 38.1], start) == "-2.0 (-2.2 … -1.8); worse, more than noise (p = 0.00083)"
    # differences 1, −1, 3: t = 1 / (2 / √3) = 0.866, p = 0.478
    assert compared([21.0, 29.0, 43.0], start) == "+1.0 (-4.0 … +6.0); no more than noise (p = 0.48)"
    # smaller distances are better
    assert compared([0.18, 0.279, 0.381], [0.2, 0.3, 0.4], digits=3, falling=True) == (
        "-0.020 (-0.022 … -0.018); better, more than noise (p = 0.00083)"
    )


def test_settings_beyond_the_paper_are_named_with_both_values():
    assert beyond_paper(to_dict(PRESETS["cityscapes_r50"].config)) == {}
    other = override(PRESETS["cityscapes_r50"], {"model.reach": 64, "inference.threshold": 0.3})
    assert beyond_paper(to_dict(other.config)) == {"model.reach": (64, None)}


def test_a_table_keeps_paper_and_ours_apart():
    (campaign,) = find_campaigns(losses(FULL))
    (section,) = table_sections(campaign)
    grid = section.grids["Scores"]
    assert [block for block, _ in grid.blocks] == ["", "Paper, Cityscapes val", "Ours, streets val"]
    cells = {row[0]: dict(zip(grid.columns, row, strict=True)) for row in grid.rows}
    for row, published in zip(LOSSES.rows, TABLE_3, strict=True):
        assert cells[row.title]["Paper, Cityscapes val", "PQ"] == f"{published.quality.pq:.1f}"
        assert cells[row.title]["Paper, Cityscapes val", "PQ_st"] == f"{published.quality.pq_stuff:.1f}"
    assert cells["none"]["Ours, streets val", "PQ"] == "21.0 ± 1.0"
    assert cells["none"]["Ours, streets val", "n"] == "3"
    missing = cells["M.C.D + L_inter"]
    assert (missing["Ours, streets val", "PQ"], missing["Ours, streets val", "n"]) == ("–", "0")
    gaps = section.grids["Differences"]
    assert [row[0] for row in gaps.rows] == [row.title for row in LOSSES.rows[1:]]
    assert gaps.rows[-1][1:4] == ["+1.2", "+2.2", "+0.5"]  # Table 3, last row − first
    assert gaps.rows[-1][4].startswith("+2.0 (")
    assert "6 training and 2 validation images; 800 iterations × 4 images" in section.conditions
    assert "15.0 minutes of training per run, on a machine; seeds 0, 1, 2" in section.conditions
    assert section.grids["The Panoptic-Feature (§4)"].rows[0][3] == "1.250 ± 1.000"


def test_the_feature_without_and_with_the_tasks_is_paired_by_seed():
    records = losses({"dice": [20.0, 21.0, 22.0, 23.0], "full": [21.0, 22.0, 23.0], "no-losses": [19.0]})
    for record in records:
        better = record["experiment"] == "full"
        # a seed of only one row must not change the difference
        record["metrics"]["features"] = {
            "distance_ratio": 0.5 + 0.1 * record["seed"] - (0.2 + 0.01 * record["seed"] if better else 0),
            "contour_f": 0.6 if better else None,
        }
    (campaign,) = find_campaigns(records)
    (section,) = table_sections(campaign)
    rows = {row[0]: row[1:] for row in section.grids["Effect of the auxiliary tasks on it"].rows}
    # −0.20, −0.21, −0.22: t = −0.21 / (0.01 / √3) = −36.37, p = 0.00076
    assert rows["distance within / between instances"] == [
        "0.650 ± 0.129",
        "0.390 ± 0.090",
        "-0.210 (-0.235 … -0.185); better, more than noise (p = 0.00076)",
    ]
    assert rows["F of contour head"] == ["–", "0.600 ± 0.000", "–"]
    assert rows["silhouette, classes"] == ["–", "–", "–"]


def test_curves_of_the_systems():
    records = []
    rows = {row.name: row for row in TABLES["rates"].rows}
    for name, ends in (("spinet-rate-1", (30.0, 32.0)), ("panoptic_fpn-rate-3", (20.0, 21.0))):
        for seed, end in enumerate(ends):
            evaluations = {"400": {"PQ": end / 2}, str(500 + seed): {"PQ": 5.0}}
            records.append(record_of(rows[name], seed, end) | {"evaluations": evaluations})
    (section,) = curve_sections(find_campaigns(records))
    grid = section.grids["PQ after so many iterations"]
    assert [name for _, name in grid.columns] == ["row", "400", "800"]
    assert grid.rows == [
        ["SPINet, rate × 1", "15.5 ± 0.7", "31.0 ± 1.4"],
        ["Panoptic-FPN, rate × 3", "10.2 ± 0.4", "20.5 ± 0.7"],
    ]
    assert curve_sections(find_campaigns(losses(FULL))) == []


def test_records_of_other_data_settings_or_sweeps_do_not_mix():
    shorter = to_dict(override(PRESETS["tiny"], {"train.iterations": 100}).config)
    other = [{**r, "base": shorter, "config": {**r["config"], "train": shorter["train"]}} for r in losses(FULL)]
    alone = [{key: value for key, value in r.items() if key != "base"} for r in losses(FULL)]
    found = find_campaigns([*losses(FULL), *losses(FULL, data="nuclei"), *other, *alone])
    assert sorted((campaign.data, len(campaign.records)) for campaign in found) == [
        ("nuclei", 9),
        ("streets", 9),
        ("streets", 9),
    ]


def test_of_two_runs_with_one_seed_the_later_counts_and_copies_count_once(tmp_path: Path):
    first = losses(FULL)
    repeated = record_of(LOSSES.rows[0], 0, 26.0)
    (campaign,) = find_campaigns([*first, repeated])
    assert campaign.runs(LOSSES.rows[0])[0]["metrics"]["PQ"] == 26.0
    for name in ("a", "b"):
        write(first, tmp_path / name)
    assert len(read_runs([tmp_path / "a", tmp_path / "b", tmp_path])) == len(first)


def test_a_run_may_stand_in_several_tables():
    records = [*losses(FULL), *(record_of(TABLES["table5"].rows[0], seed, 19.0 + seed) for seed in range(3))]
    (campaign,) = find_campaigns(records)
    titles = [section.title.split(":")[0] for section in table_sections(campaign)]
    assert titles == ["§5.4, Table 3", "§5.4, Table 5"]


def test_a_table_with_runs_of_others_only_is_not_shown():
    """Table 1's runs of SPINet and CondInst are rows of the group `condinst`, too."""
    rows = {row.name: row for group in ("rates", "condinst") for row in TABLES[group].rows}
    rates = {f"{system}-rate-{factor}": pq for system in ("spinet", "condinst") for factor, pq in ((1, 9.0), (3, 8.0))}
    records = [record_of(rows[name], 0, pq, created=name) for name, pq in rates.items()]
    sections = table_sections(*find_campaigns(records))
    assert [section.title.split(":")[0] for section in sections] == ["§5.3, Table 1 in miniature"]
    records.append(record_of(rows["condinst-absolute"], 0, 15.0, created="later"))
    sections = table_sections(*find_campaigns(records))
    assert len(sections) == 2
    assert [row[0] for row in sections[1].grids["Scores"].rows] == [
        "CondInst",
        "CondInst, absolute coordinates",
        "SPINet, 64 channels",
    ]


def test_systems_stand_at_their_best_rate_beside_nothing_of_the_papers():
    found = {"SPINet": (9.0, 11.0, 10.0), "UPSNet": (5.0, 6.0, 8.0)}
    records = [
        record_of(row, 0, pq)
        for title, scores in found.items()
        for row, pq in zip([row for row in RATES.rows if row.title.startswith(f"{title}, rate")], scores, strict=False)
    ]
    best = [next(r for r in RATES.rows if r.name == name) for name in ("spinet-rate-1", "upsnet-rate-3")]
    records += [record_of(row, seed, pq + seed) for row, pq in zip(best, (11.0, 8.5), strict=True) for seed in (1, 2)]
    records.append(record_of(RATES.rows[2], 1, 99.0))  # another seed at only one rate must not count
    (campaign,) = find_campaigns(records)
    (section,) = table_sections(campaign)
    assert section.title.startswith("§5.3, Table 1 in miniature")
    grid = section.grids["Scores"]
    assert {block for block, _ in grid.columns} == {"", "Ours, streets val"}
    scores = {row[0]: dict(zip((name for _, name in grid.columns), row, strict=True)) for row in grid.rows}
    assert (scores["SPINet"]["PQ"], scores["SPINet"]["n"]) == ("12.0 ± 1.0", "3")
    assert (scores["UPSNet"]["PQ"], scores["UPSNet"]["n"]) == ("9.3 ± 1.3", "3")
    assert "Panoptic-FPN" not in scores
    assert "Not run: Panoptic-FPN; " in section.conditions
    assert "A rate beside the best has not run for UPSNet." in section.conditions
    search = next(grid for name, grid in section.grids.items() if name.startswith("Search"))
    assert search.rows == [["SPINet", "9.0", "[11.0]", "10.0"], ["UPSNet", "5.0", "6.0", "[8.0]"]]
    assert [name for _, name in search.columns] == ["row", "rate 0.0003", "rate 0.001", "rate 0.003"]


class Page(HTMLParser):
    """The references of a page, and its text."""

    def __init__(self, html: str):
        super().__init__()
        self.tags: list[str] = []
        self.references: list[str] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.references += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "data")]

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_needs_no_other_file(tmp_path: Path):
    runs = write(losses(FULL, data="<script>alert(1)</script>"), tmp_path / "runs")
    made = report([runs], tmp_path)
    html = (tmp_path / "report.html").read_text()
    page = Page(html)
    assert made == [tmp_path / "tables.md", tmp_path / "report.html"]
    assert not {"script", "link", "iframe"} & set(page.tags)
    assert "url(" not in html
    outside = [ref for ref in page.references if not ref.startswith(("data:image/", "#"))]
    assert outside == ["https://arxiv.org/abs/2012.01632"]
    assert all(ref[1:] in html.split('id="', 1)[1] for ref in page.references if ref.startswith("#"))
    assert "<script>alert(1)</script>" in page.text
    assert "21.0 ± 1.0" in page.text
    assert "What was not run" in page.text


def test_tables_name_their_sources_and_are_the_same_each_time(tmp_path: Path):
    runs = write(losses(FULL), tmp_path / "runs")
    contents = []
    for _ in range(2):
        report([runs], tmp_path / "out")
        contents.append(
            [(tmp_path / "out" / name).read_bytes() for name in ("tables.md", "tables.json", "report.html")]
        )
    assert contents[0] == contents[1]
    assert len(json.loads(contents[0][1])["sources"]) == 9
    assert b"**Ours, streets val:** PQ" in contents[0][0]


def test_what_was_not_run_is_said():
    records = losses({**FULL, "inter-intra": [20.0]})
    lines = not_run([*records, record_of(LOSSES.rows[2], 1, None, status="running")])
    assert any(line.startswith("Cityscapes: no record") for line in lines)
    assert any(line.startswith("§5.4, Table 4, pyramid levels") and line.endswith("not run.") for line in lines)
    (campaign,) = find_campaigns(records)
    few = f"§5.4, Table 3, use of the proposed losses, on {campaign.title}: fewer than 3 runs of "
    assert f"{few}M.C.D + L_inter (0), L_inter + L_intra (1)." in lines
    assert "Started and not finished: dice-inter with seed 1 on streets." in lines
    whole = {"name": "cityscapes", "splits": {"train": 2975, "val": 500}, "fingerprint": "c"}
    assert not [line for line in not_run([{**r, "data": whole} for r in records]) if line.startswith("Cityscapes:")]


def test_environment_and_settings_are_shown():
    records = [*losses(FULL), *losses({"full": [20.0]}, data="nuclei")]
    assert [row[:2] for row in environment(records).rows] == [["10", "a machine"]]
    grid = settings(records)
    assert [name for _, name in grid.columns] == [
        "setting",
        "the paper's preset, Cityscapes",
        "tables on nuclei",
        "tables on streets",
    ]
    assert ["model.backbone", "resnet50c", "tf_efficientnet_lite0", "tf_efficientnet_lite0"] in grid.rows
    assert not [row for row in grid.rows if row[0] in ("train.seed", "model.kernel")]


def test_without_a_finished_record_there_is_no_report(tmp_path: Path):
    runs = write(losses({"full": [20.0]}, status="running"), tmp_path / "runs")
    with pytest.raises(ConfigError, match="runs: no finished run record there"):
        report([runs], tmp_path)
    assert not (tmp_path / "tables.md").exists()
