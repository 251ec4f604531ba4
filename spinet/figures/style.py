"""Style and saving of figures: the same bytes for the same inputs, readable in print."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
from cycler import cycler
from matplotlib.figure import Figure

from spinet.files import atomic_write

COLUMN, PAGE = 3.4, 7.0
"""Widths of a column and of a page in print, in inches."""

COLORS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#000000")
"""Okabe and Ito's palette, which people with any type of colour vision can distinguish."""

RC: dict[Any, Any] = {
    "axes.prop_cycle": cycler(color=COLORS),
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 9,
    "figure.constrained_layout.use": True,
    "figure.dpi": 110,
    "font.size": 8,
    "image.cmap": "viridis",
    "image.interpolation": "nearest",
    "legend.frameon": False,
    "savefig.dpi": 220,
    "svg.fonttype": "path",
    "svg.hashsalt": "spinet",
}


def use() -> None:
    """Make this style matplotlib's default, for a whole notebook or program."""
    matplotlib.rcParams.update(RC)


def new_figure(width: float = PAGE, height: float = 2.5) -> Figure:
    """An empty figure in this style, sizes in inches, without a window and not registered in pyplot."""
    use()  # axes and text read matplotlib's settings when they are added
    return Figure(figsize=(width, height))


def to_png(figure: Figure) -> bytes:
    """The figure as PNG, without a date, so that equal figures give equal bytes."""
    return _rendered(figure, "png")


def save(figure: Figure, folder: str | Path, name: str, *, sources: Sequence[str]) -> None:
    """Writes `name`.png, `name`.svg and `name`.json, which names the runs and files that the figure shows."""
    for kind in ("png", "svg"):
        atomic_write(Path(folder) / f"{name}.{kind}", _rendered(figure, kind))
    facts = {"figure": name, "sources": sorted(sources)}
    atomic_write(Path(folder) / f"{name}.json", (json.dumps(facts, indent=2) + "\n").encode())


def _rendered(figure: Figure, kind: str) -> bytes:
    buffer = io.BytesIO()
    metadata = {"Date": None} if kind == "svg" else {"Software": None}
    with matplotlib.rc_context(RC):
        figure.savefig(buffer, format=kind, metadata=metadata, facecolor="white")
    return buffer.getvalue()
