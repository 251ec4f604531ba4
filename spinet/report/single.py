"""Single runs as a table: a row for SPINet, and a row for its semantic output with connected components."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from spinet.config.baselines import TITLES
from spinet.report.grid import Grid

QUALITIES = ("PQ", "PQ_th", "PQ_st")
COLUMNS = ("data, seed", "", *QUALITIES, "AP", "mIoU", "conditions")


def results_table(records: Iterable[Mapping[str, Any]]) -> Grid:
    """`results_rows` with column headings."""
    return Grid([("", name) for name in COLUMNS], results_rows(records))


def results_rows(records: Iterable[Mapping[str, Any]]) -> list[list[str]]:
    """Two rows per record: its system, then semantics plus components; scores in percent, and conditions.

    A record has one seed; several records of an experiment give several pairs of rows.
    """
    rows = []
    for record in records:
        metrics, place = record["metrics"], f"{record['data']['name']}, {record['seed']}"
        whole = [metrics[name] for name in (*QUALITIES, "AP", "mIoU")]
        parts = [metrics[f"{name}_components"] for name in QUALITIES]
        rows.append([place, TITLES[system(record)], *map(percent, whole), f"{conditions(record)}; {cost(record)}"])
        single = map(percent, [*parts, None, whole[-1]])
        rows.append(["", "its semantic output + connected components", *single, "same network"])
    return rows


def system(record: Mapping[str, Any]) -> str:
    """The system of a run, a key of `TITLES`."""
    return (record["config"].get("baseline") or {"system": "spinet"})["system"]


def conditions(record: Mapping[str, Any]) -> str:
    """Data, schedule and network of a run, as text."""
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


def cost(record: Mapping[str, Any]) -> str:
    """Training time and device of a run."""
    return f"{60 * record['hours']:.0f} minutes on {record['device']['name']}"


def is_single(record: Mapping[str, Any]) -> bool:
    """Whether a record is of a finished single run. Runs of a table's rows have a `base`."""
    return record["status"] == "finished" and not record.get("base")


def percent(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"
