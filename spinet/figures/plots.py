"""The two figures that notebooks need most: images side by side, and curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import seaborn

from spinet.figures.style import COLORS, PAGE, Figure, new_figure

MARKED = 20
"""Curves of at most this many points have markers."""


def gallery(images: Mapping[str, Any] | Sequence[tuple[str, Any]], *, columns: int = 2, **look: Any) -> Figure:
    """Images with titles in rows, as wide as a page. `figure.axes` are theirs, in order.

    Args:
        images: arrays or tensors [H, W] or [H, W, 3] by title; or pairs, if titles repeat.
        columns: number of images in a row; the last row may have fewer.
        look: settings of `Axes.imshow` for all images, such as cmap, vmin and vmax.
    """
    given = images.items() if isinstance(images, Mapping) else images
    pairs = [(str(name), np.asarray(image)) for name, image in given]
    rows = -(-len(pairs) // columns)
    fontsize = 9 if columns < 4 else 7
    aspect = max(image.shape[0] / image.shape[1] for _, image in pairs)
    lines = max(name.count("\n") + 1 for name, _ in pairs)
    gap = 6 / 72  # of the layout between images, inches
    title = 1.2 * fontsize * lines / 72 + 2 * gap
    figure = new_figure(PAGE, rows * ((PAGE / columns - gap) * aspect + title))
    for place, (name, image) in enumerate(pairs, 1):
        axes = figure.add_subplot(rows, columns, place, xticks=[], yticks=[])
        axes.imshow(image, **look)
        axes.set_title(name, fontsize=fontsize)
        axes.spines[:].set(visible=True, color="0.7", linewidth=0.5)
    return figure


def line(
    curves: pd.DataFrame | Mapping[str, pd.DataFrame],
    *,
    vertical: Mapping[str, float] | None = None,
    horizontal: Mapping[str, float] | None = None,
    **settings: Any,
) -> Figure:
    """Curves, each with a colour and a line style; or panels of curves side by side, by title.

    Args:
        curves: one column a curve; the index is x. The panels have the same columns and one legend.
        vertical, horizontal: reference lines in all panels: x or y by name.
        settings: of the axes of all panels, such as xlabel, ylabel, ylim and title.
    """
    panels = curves if isinstance(curves, Mapping) else {settings.pop("title", ""): curves}
    figure = new_figure(PAGE, 2.2)
    grid = figure.subplots(1, len(panels), squeeze=False)[0]
    for axes, (title, data) in zip(grid, panels.items(), strict=True):
        colors = COLORS[: data.shape[1]]
        seaborn.lineplot(data, ax=axes, palette=colors, markers=len(data) <= MARKED, estimator=None)
        for mark, places, style in ((axes.axvline, vertical, ":"), (axes.axhline, horizontal, "-.")):
            for name, place in (places or {}).items():
                mark(place, color="0.5", linestyle=style, linewidth=1, label=name)
        axes.set(title=title, **settings)
        if axes is not grid[0]:
            axes.set_ylabel("")
        axes.legend().remove()
    handles, labels = grid[0].get_legend_handles_labels()
    if len(labels) > 1 and len(panels) > 1:
        figure.legend(handles, labels, loc="outside lower center", ncols=5)
    elif len(labels) > 1:
        figure.legend(handles, labels, loc="outside right upper")
    return figure
