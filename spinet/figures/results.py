"""Figures of predictions and scores: Fig. 5, plots of Tables 1 to 3."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

import matplotlib.patheffects
import numpy as np
import pandas as pd
import seaborn
from jaxtyping import Float, UInt8
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

from spinet.data.overlay import draw_panoptic
from spinet.data.segments import Categories
from spinet.figures.style import COLORS, PAGE, new_figure
from spinet.inference.predict import Prediction
from spinet.paper import Comparison, Quality

BESIDE = ((0, 7, "center"), (0, -12, "center"), (8, -2, "left"), (-8, -2, "right"), (0, 15, "center"))
"""Candidate positions of a label: offset from its point, in points, and alignment."""

Named = tuple[Axes, str, tuple[float, float]]
"""A label, and its point in the data coordinates of the axes."""

HALO = [matplotlib.patheffects.withStroke(linewidth=1.6, foreground="white")]


@dataclass(frozen=True)
class Seen:
    """An image, predictions of networks trained without and with the auxiliary tasks, and the latter's contour map."""

    image: UInt8[np.ndarray, "H W 3"]
    without_tasks: Prediction
    contour: Float[np.ndarray, "H W"]  # probability
    with_tasks: Prediction


def figure_5(rows: Sequence[Seen], categories: Categories) -> Figure:
    """Fig. 5: the effect of the auxiliary tasks, one row per image."""
    height, width = rows[0].image.shape[:2]
    figure = new_figure(PAGE, 0.25 + len(rows) * (PAGE / 4) * height / width)
    grid = figure.subplots(len(rows), 4, squeeze=False)
    titles = ("(a) image", "(b) without auxiliary tasks", "(c) contour map", "(d) with auxiliary tasks")
    for axes, title in zip(grid[0], titles, strict=True):
        axes.set_title(title, fontsize=8)
    for line, seen in zip(grid, rows, strict=True):
        drawn = [
            draw_panoptic(seen.image, p.ids, p.segments, categories) for p in (seen.without_tasks, seen.with_tasks)
        ]
        for axes, picture in zip(line, (seen.image, drawn[0], seen.contour, drawn[1]), strict=True):
            axes.imshow(picture, cmap="magma", vmin=0, vmax=max(float(seen.contour.max()), 1e-6))
            axes.set_axis_off()
    return figure


def balance(table: Sequence[Comparison]) -> Figure:
    """Table 1: PQ on things against PQ on stuff, for systems where both are published."""
    figure = new_figure(PAGE, 3.2)
    grid = figure.subplots(1, 2)
    kinds = {
        "with region proposals": ("o", COLORS[0]),
        "without": ("s", COLORS[1]),
        "SPINet, without": ("*", COLORS[5]),
    }
    named: list[Named] = []
    for axes, (title, field) in zip(grid, {"COCO val": "coco", "Cityscapes val": "cityscapes"}.items(), strict=True):
        for row in table:
            quality: Quality = getattr(row, field)
            if quality.pq_things is None or quality.pq_stuff is None:
                continue
            ours = row.method == "SPINet"
            marker, color = kinds[
                "SPINet, without" if ours else "with region proposals" if row.proposals else "without"
            ]
            place = (quality.pq_stuff, quality.pq_things)
            axes.scatter(*place, marker=marker, color=color, s=80 if ours else 20)
            named.append((axes, f"{row.method}, deformable" if ours and row.deformable else row.method, place))
        axes.margins(0.2, 0.16)
        axes.set(title=f"{title} (Table 1)", xlabel="PQ on stuff", ylabel="PQ on things")
    for name, (marker, color) in kinds.items():
        grid[0].scatter([], [], marker=marker, color=color, s=30, label=name)
    figure.legend(loc="outside lower center", ncols=len(kinds))
    _write(figure, named)
    return figure


def speed(panels: Mapping[str, Mapping[str, tuple[float, float]]]) -> Figure:
    """Table 2 as plots: panoptic quality against time per image.

    Args:
        panels: by panel title, the seconds and PQ of each system by its name.
    """
    rows = ceil(len(panels) / 3)
    figure = new_figure(PAGE, 2.7 * rows)
    grid = figure.subplots(rows, ceil(len(panels) / rows), squeeze=False).flatten()
    named: list[Named] = []
    for axes in grid[len(panels) :]:
        axes.remove()
    for axes, (title, systems) in zip(grid, panels.items(), strict=False):
        for name, place in systems.items():
            ours = name == "SPINet"
            axes.scatter(*place, marker="*" if ours else "o", color=COLORS[5 if ours else 0], s=80 if ours else 20)
            named.append((axes, name, place))
        axes.set_xlim(0, 1.25 * max(seconds for seconds, _ in systems.values()))
        axes.margins(y=0.25)
        axes.set(title=title, xlabel="seconds per image", ylabel="PQ, Cityscapes val (paper)")
    _write(figure, named)
    return figure


def _write(figure: Figure, named: Sequence[Named]) -> None:
    """Writes the labels in order, each at the offset where it overlaps the fewest points and earlier labels."""
    figure.draw_without_rendering()  # fixes the positions of the axes
    places = [axes.transData.transform(place) for axes, _, place in named]
    taken = [Bbox.from_bounds(x - 5, y - 5, 10, 10) for x, y in places]
    for axes, name, place in named:
        tried = []
        for x, y, align in BESIDE:
            text = axes.annotate(
                name, place, (x, y), textcoords="offset points", ha=align, fontsize=6, path_effects=HALO
            )
            extent = text.get_window_extent()
            tried.append((sum(extent.overlaps(other) for other in taken), len(tried), text, extent))
        best = min(tried, key=lambda one: one[:2])
        for _, number, text, extent in tried:
            if number == best[1]:
                taken.append(extent)
            else:
                text.remove()


def gains(panels: Mapping[str, Mapping[str, Sequence[float]]], *, label: str) -> Figure:
    """Differences of each row of an ablation to the first row: bars for means, dots for seeds.

    Args:
        panels: by panel title, the differences by row title; every panel has the same rows.
        label: name of the difference, with its unit.
    """
    rows = list(next(iter(panels.values())))
    figure = new_figure(PAGE, 0.75 + 0.3 * len(rows))
    grid = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axes, (title, values) in zip(grid, panels.items(), strict=True):
        data = pd.DataFrame([(row, value) for row in rows for value in values[row]], columns=["row", "difference"])
        named: dict[str, Any] = {"x": "difference", "y": "row", "order": rows, "orient": "y", "ax": axes}
        spread: dict[str, Any] = {"errorbar": "sd", "err_kws": {"color": "0.3", "linewidth": 1.2}}
        seaborn.barplot(data, **named, **spread, width=0.55, color=COLORS[4], saturation=1)
        seaborn.stripplot(
            data.loc[data.duplicated("row", keep=False)], **named, jitter=False, color=COLORS[0], size=3.5
        )
        axes.axvline(0, color="0.3", linewidth=0.8)
        axes.set(title=title, xlabel=label, ylabel="")
    return figure


def panoptic_map(image: UInt8[np.ndarray, "H W 3"], prediction: Prediction, categories: Categories) -> Figure:
    """An image and, next to it, its predicted panoptic map."""
    height, width = image.shape[:2]
    figure = new_figure(PAGE, PAGE / 2 * height / width)
    drawn = draw_panoptic(image, prediction.ids, prediction.segments, categories)
    for axes, picture in zip(figure.subplots(1, 2), (image, drawn), strict=True):
        axes.imshow(picture)
        axes.set_axis_off()
    return figure
