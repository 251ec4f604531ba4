"""The tables of results and of times in the README and on the model card, written from records and nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from spinet.config.baselines import TITLES
from spinet.files import atomic_write
from spinet.records import find_records
from spinet.speed.summary import read_benchmarks, summary
from spinet.weights import SHIPPED

ROOT = Path(__file__).resolve().parent.parent
START, END = "<!-- results: written by python -m spinet.results -->", "<!-- end of results -->"
SPEED_START, SPEED_END = "<!-- speed: written by python -m spinet.results -->", "<!-- end of speed -->"
CARD = SHIPPED.parent / "README.md"
QUALITIES = ("PQ", "PQ_th", "PQ_st")


COLUMNS = ("data, seed", "", *QUALITIES, "AP", "mIoU", "conditions")


def results_table(records: Iterable[Mapping[str, Any]]) -> str:
    """Markdown: `results_rows` under their heads."""
    lines = [COLUMNS, ["---", "---", *["---:"] * 5, "---"], *results_rows(records)]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def results_rows(records: Iterable[Mapping[str, Any]]) -> list[list[str]]:
    """For each record its system and, beneath, semantics plus components, in percent; conditions.

    A record stands for one seed; several records of one experiment are several pairs of rows.
    """
    rows = []
    for record in records:
        metrics, place = record["metrics"], f"{record['data']['name']}, {record['seed']}"
        system = record["config"].get("baseline") or {"system": "spinet"}
        whole = [metrics[name] for name in (*QUALITIES, "AP", "mIoU")]
        parts = [metrics[f"{name}_components"] for name in QUALITIES]
        minutes = f"{60 * record['hours']:.0f} minutes on {record['device']['name']}"
        rows.append([place, TITLES[system["system"]], *map(_cell, whole), f"{conditions(record)}; {minutes}"])
        single = map(_cell, [*parts, None, whole[-1]])
        rows.append(["", "its semantic output + connected components", *single, "same network"])
    return rows


def conditions(record: Mapping[str, Any]) -> str:
    """Data, schedule and network of a run, in words."""
    config, splits = record["config"], record["data"]["splits"]
    seen = "a new scene for each training image" if config["input"].get("endless") else f"{splits['train']} training"
    weights, _, _ = record["backbone_weights"].partition(", sha256")
    if initial := record.get("init"):
        weights = f"{initial['file']} ({initial['sha256'][:8]})"
    return (
        f"{seen} and {splits['val']} validation images; {record['iterations']} iterations × "
        f"{config['train']['batch_size']} images of {' × '.join(map(str, config['input']['crop'] or ['whole']))} px; "
        f"{config['model']['backbone']}, initial weights: {weights}"
    )


def is_single(record: Mapping[str, Any]) -> bool:
    """Whether a finished run stands for itself: those of a sweep have a `base` and belong into tables of their own."""
    return record["status"] == "finished" and "base" not in record


def _cell(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"


def speed_tables(benchmarks: Iterable[Mapping[str, Any]]) -> str:
    """Markdown: of each record its conditions and the rows that `summary` makes."""
    parts = []
    for record in benchmarks:
        rows = summary(record)
        name, height, width = record["device"]["name"], *record["size"]
        parts.append(
            f"{height} × {width} px, preset `{record['preset']}`, {name}, {record['threads']} threads, medians of "
            f"{record['repeats']} rounds:\n\n"
        )
        cells = [[_short(value) for value in row.values()] for row in rows]
        head = [list(rows[0]), ["---", "---", *["---:"] * (len(rows[0]) - 2)]]
        parts += [f"| {' | '.join(line)} |\n" for line in (*head, *cells)]
        parts.append("\n")
    if parts:
        parts.append("![Time of an image against panoptic quality, published and measured](figures/speed.png)\n")
    return "".join(parts)


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.0f}" if value >= 100 else f"{value:.3g}"
    return "–" if value is None else str(value)


def page(text: str, records: Iterable[Mapping[str, Any]]) -> str:
    """The README, or the model card, with its results replaced."""
    return _replaced(text, START, results_table(records), END)


def speed_page(text: str, benchmarks: Iterable[Mapping[str, Any]]) -> str:
    """The README with its times replaced."""
    return _replaced(text, SPEED_START, speed_tables(benchmarks), SPEED_END)


def _replaced(text: str, start: str, content: str, end: str) -> str:
    before, rest = text.split(start)
    _, after = rest.split(end)
    return f"{before}{start}\n\n{content}\n{end}{after}"


def main() -> None:
    """Writes the README's tables and that of the model card."""
    readme = ROOT / "README.md"
    records = filter(is_single, find_records(ROOT / "figures" / "runs").values())
    text = page(readme.read_text(), [*records, *card_records()])
    atomic_write(readme, speed_page(text, read_benchmarks(ROOT / "figures" / "runs")).encode())
    atomic_write(CARD, page(CARD.read_text(), card_records()).encode())


def card_records() -> list[dict[str, Any]]:
    """The record of the weights that come with the package."""
    return list(find_records(CARD.parent).values())


if __name__ == "__main__":
    main()
