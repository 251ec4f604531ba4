"""§5.2 Draw the training targets of an image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Int, UInt8
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from spinet.data.overlay import draw_panoptic
from spinet.data.segments import Categories, Sample
from spinet.figures.style import COLORS, PAGE, new_figure

IGNORED, BACKGROUND = (255, 255, 255), (205, 205, 205)


def draw_segments(sample: Sample, categories: Categories) -> UInt8[np.ndarray, "H W 3"]:
    """The true segments of a sample drawn over its image; crowds are not drawn."""
    ids = [category.id for category in categories.all]
    segments = [
        {"id": number + 1, "category_id": ids[label]}
        for number, (label, crowd) in enumerate(zip(sample.labels.tolist(), sample.crowd.tolist(), strict=True))
        if not crowd
    ]
    known = np.zeros(len(sample.labels) + 1, dtype=np.int32)
    known[[segment["id"] for segment in segments]] = [segment["id"] for segment in segments]
    image = np.ascontiguousarray(sample.pixels)
    return draw_panoptic(image, known[sample.segment_map.numpy()], segments, categories)


def draw_classes(classes: Int[np.ndarray, "H_l W_l"], categories: Categories) -> UInt8[np.ndarray, "H_l W_l 3"]:
    """The class map of a level: white cells are ignored, grey cells have no thing."""
    palette = np.array([category.color for category in categories.things] + [BACKGROUND, IGNORED], dtype=np.uint8)
    return palette[classes]  # −1 indexes the last colour (ignored), −2 the one before (background)


def figure_targets(sample: Sample, targets: Any, strides: Sequence[int], categories: Categories) -> Figure:
    """An image and all targets of the losses.

    Args:
        sample: a sample of H × W pixels, multiples of the largest stride.
        targets: `Targets` of this sample only, with a contour.
        strides: image pixels per cell, for each level.

    Raises:
        ValueError: the sample has no things.
    """
    own = targets.images[0]
    if not len(own.labels):
        raise ValueError("targets of a sample without things: there is no mask to draw; choose another sample")
    height, width = sample.size
    figure = new_figure(PAGE, 2 * (PAGE / 3 * height / width + 0.22))
    grid = figure.subplots(2, 3).ravel()
    chosen = int(own.masks.flatten(1).sum(1).argmax())
    finest = own.sample_level == 0
    inside = own.sample_instance[finest].numpy() == chosen
    x, y = own.sample_x[finest].numpy(), own.sample_y[finest].numpy()
    name = categories.things[int(own.labels[chosen])].name
    last = len(strides) - 1
    _show(grid[0], sample.pixels, "image")
    _show(grid[1], draw_segments(sample, categories), "segments")
    _show(grid[2], targets.contour[0].numpy(), "soft contour between classes", cmap="magma")
    _show(
        grid[3],
        draw_classes(targets.classes[0][0].numpy(), categories),
        f"classes at stride {strides[0]}, sampled locations",
    )
    grid[3].scatter(x[~inside], y[~inside], s=5, color="white", linewidths=0)
    grid[3].scatter(x[inside], y[inside], s=7, color=COLORS[5], linewidths=0)
    _show(grid[4], draw_classes(targets.classes[last][0].numpy(), categories), f"classes at stride {strides[last]}")
    _show(grid[5], own.masks[chosen].numpy(), f"mask of a {name}, stride 4", cmap="viridis")
    return figure


def _show(axes: Axes, image: np.ndarray, title: str, cmap: str | None = None) -> None:
    axes.imshow(image, cmap=cmap, vmin=0, vmax=1 if cmap else None)
    axes.set_title(title, fontsize=8)
    axes.set_axis_off()
