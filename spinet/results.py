"""The README's table of results, written from the run records in `figures/runs/` and from nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from spinet.runs import atomic_write, find_records

ROOT = Path(__file__).resolve().parent.parent
START, END = "<!-- results: written by python -m spinet.results -->", "<!-- end of results -->"
QUALITIES = ("PQ", "PQ_th", "PQ_st")


COLUMNS = ("data, seed", "", *QUALITIES, "AP", "mIoU", "conditions")


def results_table(records: Iterable[Mapping[str, Any]]) -> str:
    """Markdown: `results_rows` under their heads."""
    lines = [COLUMNS, ["---", "---", *["---:"] * 5, "---"], *results_rows(records)]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def results_rows(records: Iterable[Mapping[str, Any]]) -> list[list[str]]:
    """For each record the instance path and, beneath, semantics plus components, in percent; conditions.

    A record stands for one seed; several records of one experiment are several pairs of rows.
    """
    rows = []
    for record in records:
        metrics, place = record["metrics"], f"{record['data']['name']}, {record['seed']}"
        spinet = [metrics[name] for name in (*QUALITIES, "AP", "mIoU")]
        parts = [metrics[f"{name}_components"] for name in QUALITIES]
        minutes = f"{60 * record['hours']:.0f} minutes on {record['device']['name']}"
        rows.append([place, "SPINet", *map(_cell, spinet), f"{conditions(record)}; {minutes}"])
        single = map(_cell, [*parts, None, spinet[-1]])
        rows.append(["", "its semantic output + connected components", *single, "same network"])
    return rows


def conditions(record: Mapping[str, Any]) -> str:
    """Data, schedule and network of a run, in words."""
    config, splits = record["config"], record["data"]["splits"]
    return (
        f"{splits['train']} training and {splits['val']} validation images; {record['iterations']} iterations × "
        f"{config['train']['batch_size']} images of {' × '.join(map(str, config['input']['crop'] or ['whole']))} px; "
        f"{config['model']['backbone']}, initial weights: {record['backbone_weights']}"
    )


def is_single(record: Mapping[str, Any]) -> bool:
    """Whether a run stands for itself: those of a sweep have a `base` and belong into tables of their own."""
    return "base" not in record


def _cell(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"


def page(text: str, records: Iterable[Mapping[str, Any]]) -> str:
    """The README with its results replaced."""
    before, rest = text.split(START)
    _, after = rest.split(END)
    return f"{before}{START}\n\n{results_table(records)}\n{END}{after}"


def main() -> None:
    readme = ROOT / "README.md"
    records = filter(is_single, find_records(ROOT / "figures" / "runs").values())
    atomic_write(readme, page(readme.read_text(), records).encode())


if __name__ == "__main__":
    main()
