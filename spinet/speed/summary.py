"""Read the records of `spinet bench` and summarise them in rows."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from spinet.files import read_json

BENCHMARK = "time of an image"
"""Value of `benchmark` in a record."""


def read_benchmarks(folder: Path) -> list[dict[str, Any]]:
    """The records of `spinet bench --json` in a folder and its subfolders, sorted by path."""
    contents = [read_json(path) for path in sorted(folder.rglob("bench*.json"))]
    return [content for content in contents if content.get("benchmark") == BENCHMARK]


def summary(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Short rows of a record: milliseconds, multiples of SPINet's total, millions, 10^9, MB."""
    return [
        {
            "system": row["system"] + ("" if row["optimized"] else ", as built"),
            "precision": row["precision"],
            "things": row["instances"],
            "found": row["found"],
            **{f"{part} ms": round(1e3 * row[f"{part}_s"], 1) for part in ("network", "post", "total")},
            "25-75 % ms": "-".join(f"{1e3 * edge:.0f}" for edge in row["total_quartiles"]),
            "× SPINet": row["total_ratio"],
            "floor ms": round(1e3 * max(row["floor_macs_s"], row["floor_bytes_s"]), 1),
            "params M": row["params"] / 1e6,
            "MACs G": row["macs"] / 1e9,
            "memory MB": row["peak_memory"] and row["peak_memory"] / 1e6,
        }
        for row in record["rows"]
    ]
