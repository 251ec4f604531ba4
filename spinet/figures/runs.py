"""Figures of runs: loss curves, the rows of an ablation over seeds, and two rows in pairs."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import seaborn
from matplotlib.axes import Axes

from spinet.figures.style import COLORS, COLUMN, PAGE, Figure, new_figure

NAMES = {
    "class": "class",
    "things": "things, dice (Eq. 1)",
    "cross_entropy": "stuff, cross entropy",
    "stuff_dice": "stuff, dice (Eq. 2)",
    "contour": "inter-class contour (Eq. 6)",
    "triplet": "intra-class triplet (Eq. 5)",
}
"""Terms of Eq. 7 by their names in the training log."""


def loss_curves(log: Mapping[str, Sequence[float]], *, window: int | None = None) -> Figure:
    """The total loss and its weighted terms over iterations.

    Args:
        log: columns of `log.csv`: "iteration", "total" and the trained terms of `NAMES`, each of length n.
        window: iterations of the running mean; by default a twentieth of all.
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


def learned_by_heart(
    log: Mapping[str, Sequence[float]], scores: Mapping[str, float], limit: Mapping[str, float], *, window: int = 10
) -> Figure:
    """A training on few images: each term of the loss relative to its start, and the scores on the same images.

    Args:
        log: columns of `log.csv`, as for `loss_curves`.
        scores: percent, by name.
        limit: those of perfect outputs, by the same names.
        window: iterations of the running mean.
    """
    figure = new_figure(PAGE, 2.6)
    terms, bars = figure.subplots(1, 2, width_ratios=(1.6, 1))
    for color, (name, label) in zip(COLORS, NAMES.items(), strict=False):
        if name in log:
            mean = _running_mean(log[name], window)
            terms.plot(
                np.asarray(log["iteration"]), mean / np.max(mean[:window]), color=color, linewidth=1.2, label=label
            )
    terms.set(title="terms of Eq. 7, as a part of their start", xlabel="iteration", yscale="log")
    places = np.arange(len(scores))
    bars.bar(places - 0.2, [*scores.values()], 0.4, color=COLORS[0], label="the network")
    bars.bar(places + 0.2, [limit[name] for name in scores], 0.4, color=COLORS[4], label="perfect outputs")
    for group in bars.containers:
        bars.bar_label(group, fmt="%.0f", fontsize=7)
    bars.set_xticks(places, [*scores])
    bars.set(ylabel="percent", ylim=(0, 110))
    bars.legend(loc="upper left", ncols=2, fontsize=7)
    figure.legend(*terms.get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


def _running_mean(values: Sequence[float], window: int) -> np.ndarray:
    """The mean of the last `window` values at each position, or of all values so far if there are fewer."""
    sums = np.cumsum(np.concatenate([[0.0], np.asarray(values, dtype=float)]))
    end = np.arange(1, len(sums))
    begin = np.maximum(0, end - window)
    return (sums[end] - sums[begin]) / (end - begin)


def row_dots(rows: Mapping[str, Sequence[float]], *, label: str, reference: float | None = None) -> Figure:
    """A table's rows as dots, one per seed, with mean ± standard deviation.

    Args:
        rows: the values of each row by its title, from top to bottom; a row may be empty.
        label: name of the value, with its unit.
        reference: position of the dashed line; by default the mean of the first row.
    """
    figure = new_figure(COLUMN * 1.4, 0.65 + 0.3 * len(rows))
    axes = figure.subplots()
    _dots(axes, rows, label)
    first = next(iter(rows.values()), ())
    if reference is None and first:
        reference = float(np.mean(first))
    if reference is not None:
        axes.axvline(reference, color="0.6", linewidth=0.8, linestyle="--", zorder=0)
    return figure


def _dots(axes: Axes, rows: Mapping[str, Sequence[float]], label: str) -> None:
    """Draws each row's values as dots, and mean ± standard deviation if there are several."""
    data = pd.DataFrame([(row, value) for row, of in rows.items() for value in of], columns=["row", "value"])
    named: dict[str, Any] = {"x": "value", "y": "row", "order": list(rows), "orient": "y", "ax": axes}
    seaborn.stripplot(data, **named, jitter=False, color=COLORS[0], size=4, alpha=0.7)
    seaborn.pointplot(
        data.loc[data.duplicated("row", keep=False)],
        **named,
        errorbar="sd",
        color=COLORS[5],
        linestyle="none",
        marker="|",
        markersize=11,
        markeredgewidth=2,
        err_kws={"linewidth": 1},
    )
    axes.set(xlabel=label, ylabel="")


def findable_lines(found: Mapping[int, Mapping[int, float]], *, wanted: float) -> Figure:
    """The smallest difference that can be found over the length of training, one line per number of pairs of runs.

    Args:
        found: PQ by number of pairs, then by iterations.
        wanted: position of the dashed line, PQ.
    """
    figure = new_figure(COLUMN * 1.2, 2.2)
    axes = figure.subplots()
    for color, (pairs, values) in zip(COLORS, found.items(), strict=False):
        axes.plot([*values], [*values.values()], color=color, marker="o", markersize=4, label=f"{pairs} pairs of runs")
    axes.axhline(wanted, color="0.6", linewidth=0.8, linestyle="--", zorder=0)
    lengths = [*dict.fromkeys(length for values in found.values() for length in values)]
    axes.set_xscale("log")
    axes.set_xticks(lengths, [str(length) for length in lengths])
    axes.minorticks_off()
    axes.set(xlabel="iterations of training", ylabel="difference that is found, PQ")
    axes.set_ylim(bottom=0)
    axes.legend()
    return figure


def effect_map(effects: Mapping[str, Mapping[str, float]]) -> Figure:
    """Mean differences as a coloured table: one column per comparison, one row per class or size.

    Args:
        effects: percent, by the name of the comparison, then by the row.
    """
    table = pd.DataFrame(effects)
    figure = new_figure(PAGE, 1.2 + 0.2 * len(table))
    axes = figure.subplots()
    limit = float(np.nanmax(np.abs(table.to_numpy()))) or 1.0
    seaborn.heatmap(
        table,
        ax=axes,
        cmap="vlag",
        vmin=-limit,
        vmax=limit,
        annot=True,
        fmt="+.1f",
        annot_kws={"fontsize": 7},
        cbar_kws={"label": "difference, percent"},
    )
    axes.set_xticks(axes.get_xticks(), ["\n".join(textwrap.wrap(name, 22)) for name in table], rotation=0, fontsize=7)
    return figure


def paired_dots(
    panels: Mapping[str, Sequence[Mapping[int, float]]],
    *,
    names: tuple[str, str],
    chance: Mapping[str, float] | None = None,
) -> Figure:
    """Two rows of a table, one panel per measure: a dot per run, a line between runs with the same seed.

    Args:
        panels: by title of the measure, the values by seed of the first and of the second row; both may be empty.
        names: names of the two rows.
        chance: by title, the value of a feature that says nothing, as a dashed line.
    """
    columns = 4
    lines = -(-len(panels) // columns)
    figure = new_figure(PAGE, 0.4 + 1.5 * lines)
    grid = figure.subplots(lines, columns, squeeze=False).ravel()
    for axes, (title, rows) in zip(grid, panels.items(), strict=False):
        found = [(name, seed, value) for name, row in zip(names, rows, strict=True) for seed, value in row.items()]
        data = pd.DataFrame(found, columns=["row", "seed", "value"])
        data["row"] = pd.Categorical(data["row"], categories=names)
        if found:
            named: dict[str, Any] = {"data": data, "x": "row", "y": "value", "ax": axes}
            colors: dict[str, Any] = {"hue": "row", "palette": [COLORS[0], COLORS[5]], "legend": False}
            seaborn.lineplot(**named, units="seed", estimator=None, color="0.6", linewidth=0.8, zorder=0)
            seaborn.stripplot(**named, **colors, jitter=False, size=3.5)
            means: dict[str, Any] = {"linestyle": "none", "marker": "_", "markersize": 16, "markeredgewidth": 2}
            seaborn.pointplot(**named, **colors, **means, errorbar=None)
        if chance and title in chance:
            axes.axhline(chance[title], color="0.3", linewidth=0.8, linestyle="--", zorder=0)
        axes.set_xticks([0, 1], names)
        axes.set(xlabel="", ylabel="", xlim=(-0.4, 1.4))
        axes.set_title("\n".join(textwrap.wrap(title, 24)), fontsize=8)
    for axes in grid[len(panels) :]:
        axes.set_axis_off()
    return figure
