"""Writes the numbers of the README, of docs/results.md, docs/speed.md and the model card from records: `make docs`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from spinet.files import atomic_write, read_json
from spinet.records import find_records
from spinet.report.grid import Grid
from spinet.report.single import QUALITIES, cost, is_single, percent, results_table
from spinet.speed.summary import read_benchmarks, summary
from spinet.weights import SHIPPED

ROOT = Path(__file__).resolve().parent.parent
RUNS = ROOT / "figures" / "runs"
README, CARD = ROOT / "README.md", SHIPPED.parent / "README.md"
RESULTS, SPEED = ROOT / "docs" / "results.md", ROOT / "docs" / "speed.md"
START, END = "<!-- generated from records by make docs -->", "<!-- end of what is generated -->"


def single_records() -> list[dict[str, Any]]:
    """Records of single runs, and last the record of the weights in the package."""
    return [*filter(is_single, find_records(RUNS).values()), *card_records()]


def card_records() -> list[dict[str, Any]]:
    """The record of the weights in the package."""
    return list(find_records(CARD.parent).values())


def short_table(records: Iterable[Mapping[str, Any]]) -> Grid:
    """One row per record: SPINet's scores in percent, and PQ of its semantic output with connected components."""
    names = (*QUALITIES, "AP", "mIoU")
    columns = ["data", *names, "PQ of semantics + components", "iterations", "trained"]
    rows = []
    for record in records:
        scores = [percent(record["metrics"][name]) for name in (*names, "PQ_components")]
        rows.append([record["data"]["name"], *scores, str(record["iterations"]), cost(record)])
    return Grid([("", name) for name in columns], rows)


def speed_tables(benchmarks: Iterable[Mapping[str, Any]]) -> str:
    """Markdown: the conditions of each record and its rows from `summary`."""
    parts = []
    for record in benchmarks:
        rows = summary(record)
        name, height, width = record["device"]["name"], *record["size"]
        grid = Grid([("", head) for head in rows[0]], [[_short(value) for value in row.values()] for row in rows])
        parts.append(
            f"{height} × {width} px, preset `{record['preset']}`, {name}, {record['threads']} threads, medians of "
            f"{record['repeats']} rounds:\n\n{grid.markdown()}"
        )
    return "\n".join(parts)


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.0f}" if value >= 100 else f"{value:.3g}"
    return "–" if value is None else str(value)


def replaced(text: str, content: str) -> str:
    """The text with new content between the two marks `START` and `END`."""
    before, rest = text.split(START)
    _, after = rest.split(END)
    return f"{before}{START}\n\n{content}\n{END}{after}"


def class_table(folder: Path) -> Grid:
    """PQ of each class in percent, with the things' AP, of the packaged weights on SynthCity and on KITTI's photos."""
    city = read_json(folder / "synthcity.json")["metrics"]
    kitti = read_json(folder / "kitti.json")
    rows = []
    for key, one in city["per_class"].items():
        photos = kitti["per_class"].get(key, {})
        precision = city["average_precision"]["per_class"].get(key, {})
        scores = [percent(share and 100 * share) for share in (one["pq"], precision.get("AP"), photos.get("pq"))]
        rows.append([one["name"], str(one["tp"] + one["fn"]), *scores, str(photos.get("tp", 0) + photos.get("fn", 0))])
    columns = ["class", "segments", "PQ", "AP", "PQ on KITTI", "segments there"]
    return Grid([("", name) for name in columns], rows)


def size_table(folder: Path) -> Grid:
    """Which share of the things the packaged weights find, by size and by what is around them."""
    found = read_json(folder / "instances.json")["found"]
    rows = [
        [trait, str(one["number"]), *(percent(100 * one[name] / one["number"]) for name in ("spinet", "components"))]
        for trait, one in found.items()
    ]
    return Grid([("", name) for name in ("things", "number", "found", "found by components")], rows)


def pages() -> dict[Path, str]:
    """The current text of every page with generated numbers."""
    card = (results_table(card_records()), class_table(CARD.parent), size_table(CARD.parent))
    content = {
        README: short_table(single_records()).markdown(),
        RESULTS: results_table(single_records()).markdown(),
        SPEED: speed_tables(read_benchmarks(RUNS)),
        CARD: "\n".join(grid.markdown() for grid in card),
    }
    return {path: replaced(path.read_text(encoding="utf-8"), new) for path, new in content.items()}


if __name__ == "__main__":
    for path, text in pages().items():
        atomic_write(path, text.encode())
