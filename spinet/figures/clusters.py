"""§4 Maps of the Panoptic-Feature: where its vectors lie in the plane, by group of classes and by instance."""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil

import matplotlib.patheffects
import numpy as np
import seaborn
from jaxtyping import Bool, Float, Int, UInt8
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from spinet.data.segments import Categories
from spinet.evaluation.clustering import Pixels
from spinet.figures.style import COLORS, PAGE, new_figure

GREY = "#c8c8c8"
MARKERS = "os^Dv*PX"
"""A marker for each of `COLORS`, so that an instance is known without its colour."""

HALO = [matplotlib.patheffects.withStroke(linewidth=1.8, foreground="white")]

Points = Float[np.ndarray, "n 2"]


def feature_map(
    image: UInt8[np.ndarray, "H W 3"],
    pixels: Pixels,
    maps: Mapping[str, Points],
    categories: Categories,
    *,
    shown: int = 0,
    stride: float = 4,
) -> Figure:
    """n cells of the Panoptic-Feature on maps: above by group of classes, below by instance.

    Above, lines of equal density enclose each group. Below, instances of the most frequent thing class in one image
    have a colour and a marker each; all other cells are grey.

    Args:
        image: one of the images of the cells.
        pixels: the cells, of one image or of several.
        maps: positions of the cells, by the map's title.
        shown: index of `image` in `pixels.image`.
        stride: image pixels per cell: 4 if the network got the image without resizing.
    """
    figure = new_figure(PAGE, 4.6)
    above, below = figure.subplots(2, 1 + len(maps), width_ratios=(1.25, *[1] * len(maps)))
    here = pixels.image == shown
    label, instances = most_frequent_thing(pixels[here], categories)
    places = np.full((len(pixels.label), 2), np.nan)
    places[here] = (pixels.cell[here][:, ::-1] + 0.5) * stride
    for axes in (above[0], below[0]):
        axes.imshow(image, alpha=0.45)
        axes.set_axis_off()
    _draw_groups(above[0], places, pixels.label, categories, size=3, density=False)
    _draw_instances(below[0], places, pixels, instances, size=5)
    above[0].set_title("cells by group of classes")
    number = f"{min(len(instances), len(COLORS))} of {len(instances)}" if len(instances) > len(COLORS) else "each"
    name = categories.all[label].name
    below[0].set_title(f"by instance: {number} {name}" if instances else "by instance: none in the image")
    for place, (title, points) in enumerate(maps.items(), start=1):
        _draw_groups(above[place], points, pixels.label, categories)
        _draw_instances(below[place], points, pixels, instances)
        above[place].set_title(title)
    return figure


def group_maps(
    maps: Mapping[str, Points], labels: Int[np.ndarray, "n"], categories: Categories, *, columns: int = 3
) -> Figure:
    """The same cells on several maps, by group of classes.

    Args:
        maps: positions of the cells, by the map's title.
        labels: class of each cell.
    """
    rows = ceil(len(maps) / columns)
    figure = new_figure(PAGE, 2.3 * rows)
    grid = figure.subplots(rows, columns, squeeze=False).flatten()
    for axes in grid[len(maps) :]:
        axes.remove()
    for axes, (title, points) in zip(grid, maps.items(), strict=False):
        _draw_groups(axes, points, labels, categories)
        axes.set_title(title)
    return figure


def most_frequent_thing(pixels: Pixels, categories: Categories) -> tuple[int, list[int]]:
    """The thing class with the most instances among the cells, and these instances, most cells first."""
    found: dict[int, dict[int, int]] = {}
    for label, segment in zip(pixels.label.tolist(), pixels.segment.tolist(), strict=True):
        if label < categories.num_things:
            counts = found.setdefault(label, {})
            counts[segment] = counts.get(segment, 0) + 1
    if not found:
        return 0, []
    label = max(found, key=lambda one: (len(found[one]), -one))
    return label, sorted(found[label], key=lambda segment: (-found[label][segment], segment))


def class_groups(labels: Int[np.ndarray, "n"], categories: Categories) -> dict[str, Bool[np.ndarray, "n"]]:
    """Which cells are of each group of classes, by the group's name, in the order of the classes.

    A class without a group is a group of its own.
    """
    named = np.array([category.supercategory or category.name for category in categories.all])
    return {name: found for name in dict.fromkeys(named.tolist()) if (found := named[labels] == name).any()}


def _draw_groups(
    axes: Axes,
    points: Points,
    labels: Int[np.ndarray, "n"],
    categories: Categories,
    *,
    size: float = 4,
    density: bool = True,
) -> None:
    """Points in the colour of their group; with `density` also its lines of equal density and its name."""
    for index, (name, own) in enumerate(class_groups(labels, categories).items()):
        color = COLORS[index % len(COLORS)]
        axes.scatter(*points[own].T, color=color, s=size, linewidths=0, alpha=0.5 if density else 1, label=name)
        if density:
            x, y = points[own].T
            if own.sum() > 2:
                lines = {"levels": 4, "thresh": 0.25, "linewidths": 0.8, "warn_singular": False}
                seaborn.kdeplot(x=x, y=y, ax=axes, color=color, **lines)
            middle = np.abs(points[own] - np.median(points[own], axis=0)).sum(1).argmin()
            axes.text(x[middle], y[middle], name, ha="center", fontsize=6, color=color, path_effects=HALO)
    if density:
        _plain(axes)


def _draw_instances(axes: Axes, points: Points, pixels: Pixels, instances: list[int], *, size: float = 9) -> None:
    """Points of each instance with its colour and marker, all others grey."""
    others = ~np.isin(pixels.segment, instances[: len(COLORS)])
    axes.scatter(*points[others].T, color=GREY, s=size / 3, linewidths=0)
    for color, marker, segment in zip(COLORS, MARKERS, instances, strict=False):
        axes.scatter(*points[pixels.segment == segment].T, color=color, marker=marker, s=size, linewidths=0)
    if not axes.images:
        _plain(axes)


def _plain(axes: Axes) -> None:
    axes.set(xticks=[], yticks=[], xlabel="", ylabel="")
    axes.spines[:].set_visible(False)
