"""What runs leave behind, drawn: the course of a training, the rows of an ablation over seeds, two of them in pairs."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence

import numpy as np

from spinet.figures.style import COLORS, COLUMN, PAGE, Figure, new_figure

NAMES = {
    "class": "class",
    "things": "things, dice (Eq. 1)",
    "cross_entropy": "stuff, cross entropy",
    "stuff_dice": "stuff, dice (Eq. 2)",
    "contour": "inter-class contour (Eq. 6)",
    "triplet": "intra-class triplet (Eq. 5)",
}
"""Terms of Eq. 7, as training logs them."""


def loss_curves(log: Mapping[str, Sequence[float]], *, window: int | None = None) -> Figure:
    """The total loss, and its weighted terms, by iteration.

    Args:
        log: columns of `log.csv`: "iteration", "total" and those of `NAMES` that were trained, each of length n.
        window: iterations that a line averages over; by default a twentieth of all.
    """
    iteration = np.asarray(log["iteration"])
    window = window or max(1, len(iteration) // 20)
    figure = new_figure(PAGE, 2.6)
    total, terms = figure.subplots(1, 2)
    total.plot(iteration, log["total"], color=COLORS[4], linewidth=0.6, alpha=0.6, label="of each step")
    total.plot(iteration, _running_mean(log["total"], window), color=COLORS[0], label=f"mean of {window} steps")
    total.set_title("total loss")
    for color, (name, label) in zip(COLORS, NAMES.items(), strict=False):
        if name in log:
            terms.plot(iteration, _running_mean(log[name], window), color=color, linewidth=1.2, label=label)
    terms.set_title("its weighted terms (Eq. 7)")
    for axes in (total, terms):
        axes.set_xlabel("iteration")
        axes.set_ylim(bottom=0)
    total.legend(loc="lower left")
    figure.legend(*terms.get_legend_handles_labels(), loc="outside right center")
    return figure


def _running_mean(values: Sequence[float], window: int) -> np.ndarray:
    """The mean of the last `window` values at each place, of all there are at the first ones."""
    sums = np.cumsum(np.concatenate([[0.0], np.asarray(values, dtype=float)]))
    end = np.arange(1, len(sums))
    begin = np.maximum(0, end - window)
    return (sums[end] - sums[begin]) / (end - begin)


def row_dots(rows: Mapping[str, Sequence[float]], *, label: str) -> Figure:
    """A table's rows as dots, one a seed, with a bar at their mean; the dashed line is the first row's mean.

    Args:
        rows: the values of each row by its title, from top to bottom; a row may have none yet.
        label: what is measured, with its unit.
    """
    figure = new_figure(COLUMN * 1.4, 0.65 + 0.3 * len(rows))
    axes = figure.subplots()
    for place, values in enumerate(rows.values()):
        axes.plot(values, [place] * len(values), "o", color=COLORS[0], markersize=4, alpha=0.7)
        if values:
            axes.plot([float(np.mean(values))] * 2, [place - 0.28, place + 0.28], color=COLORS[5], linewidth=2)
    first = next(iter(rows.values()), ())
    if first:
        axes.axvline(float(np.mean(first)), color="0.6", linewidth=0.8, linestyle="--", zorder=0)
    axes.set_yticks(range(len(rows)), list(rows))
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlabel(label)
    return figure


def paired_dots(
    panels: Mapping[str, tuple[Mapping[int, float], Mapping[int, float]]], *, names: tuple[str, str]
) -> Figure:
    """Two rows of a table, measure by measure: a dot for each run, a line between those with the same seed.

    Args:
        panels: by the measure's title, values by seed of the first row and of the second; either may have none.
        names: of the two rows.
    """
    columns = 4
    figure = new_figure(PAGE, 0.4 + 1.5 * -(-len(panels) // columns))
    grid = figure.subplots(-(-len(panels) // columns), columns, squeeze=False).ravel()
    for axes, (title, rows) in zip(grid, panels.items(), strict=False):
        for seed in rows[0].keys() & rows[1].keys():
            axes.plot([0, 1], [row[seed] for row in rows], color="0.6", linewidth=0.8)
        for place, (row, color) in enumerate(zip(rows, (COLORS[0], COLORS[5]), strict=True)):
            if row:
                axes.plot([place] * len(row), list(row.values()), "o", color=color, markersize=3.5)
                axes.plot(
                    [place - 0.2, place + 0.2], [float(np.mean(list(row.values())))] * 2, color=color, linewidth=2
                )
        axes.set_xticks([0, 1], names)
        axes.set_xlim(-0.4, 1.4)
        axes.set_title("\n".join(textwrap.wrap(title, 24)), fontsize=8)
    for axes in grid[len(panels) :]:
        axes.set_axis_off()
    return figure
