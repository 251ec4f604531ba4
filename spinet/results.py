"""The README's table of results, written from the run records in `figures/runs/` and from nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from spinet.runs import atomic_write, find_records

ROOT = Path(__file__).resolve().parent.parent
START, END = "<!-- results: written by python -m spinet.results -->", "<!-- end of results -->"
QUALITIES = ("PQ", "PQ_th", "PQ_st")


def results_table(records: Iterable[Mapping[str, Any]]) -> str:
    """Markdown: for each record the instance path and, beneath, semantics plus components, in percent; conditions.

    A record stands for one seed; several records of one experiment are several pairs of rows.
    """
    lines = [
        "| data, seed | | PQ | PQ_th | PQ_st | AP | mIoU | conditions |",
        "|---|---|---:|---:|---:|---:|---:|---|",
    ]
    for record in records:
        metrics, config = record["metrics"], record["config"]
        data = record["data"]
        conditions = (
            f"{data['splits']['train']} training and {data['splits']['val']} validation images; "
            f"{record['iterations']} iterations × {config['train']['batch_size']} images of "
            f"{' × '.join(map(str, config['input']['crop'] or ['whole']))} px, {60 * record['hours']:.0f} minutes on "
            f"{record['device']['name']}; {config['model']['backbone']}, initial weights: {record['backbone_weights']}"
        )
        spinet = [metrics[name] for name in (*QUALITIES, "AP", "mIoU")]
        parts = [metrics[f"{name}_components"] for name in QUALITIES]
        lines.append(f"| {data['name']}, {record['seed']} | SPINet | {_cells(spinet)} | {conditions} |")
        lines.append(
            f"| | its semantic output + connected components | {_cells([*parts, None, spinet[-1]])} | same network |"
        )
    return "\n".join(lines) + "\n"


def _cells(values: Iterable[float | None]) -> str:
    return " | ".join("–" if value is None else f"{value:.1f}" for value in values)


def page(text: str, records: Iterable[Mapping[str, Any]]) -> str:
    """The README with its results replaced."""
    before, rest = text.split(START)
    _, after = rest.split(END)
    return f"{before}{START}\n\n{results_table(records)}\n{END}{after}"


def main() -> None:
    readme = ROOT / "README.md"
    records = find_records(ROOT / "figures" / "runs").values()
    atomic_write(readme, page(readme.read_text(), records).encode())


if __name__ == "__main__":
    main()
