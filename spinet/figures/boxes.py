"""Elements of diagrams: boxes, stacks of sheets (tensors), arrows, frames. Lengths are in points."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib.colors
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyArrowPatch, FancyBboxPatch, Rectangle
from matplotlib.path import Path
from torch import nn

from spinet.figures.style import new_figure
from spinet.model.layers import num_parameters

INK, FAINT = "#222222", "#555555"
"""Colours of text and lines, and of details."""

TEXT, DETAIL = 7.0, 6.0
"""Font sizes: of titles, and of details (shapes and counts)."""

Point = tuple[float, float]


@dataclass(frozen=True)
class Box:
    """The rectangle of a drawn element, in points from the canvas's bottom left corner, and its ends for arrows."""

    x: float  # of the centre
    y: float
    width: float
    height: float

    @property
    def left(self) -> Point:
        return self.x - self.width / 2, self.y

    @property
    def right(self) -> Point:
        return self.x + self.width / 2, self.y

    @property
    def top(self) -> Point:
        return self.x, self.y + self.height / 2

    @property
    def bottom(self) -> Point:
        return self.x, self.y - self.height / 2


def canvas(width: float, height: float) -> tuple[Figure, Axes]:
    """An empty figure of `width` × `height` inches with axes in points (72 per inch), y upwards."""
    figure = new_figure(width, height)
    figure.set_layout_engine("none")
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, 72 * width), ylim=(0, 72 * height))
    axes.set_axis_off()
    return figure, axes


def tint(color: str, share: float = 0.22) -> str:
    """The colour mixed with white, with `share` of its strength."""
    red, green, blue = (1 - share * (1 - part) for part in matplotlib.colors.to_rgb(color))
    return matplotlib.colors.to_hex((red, green, blue))


def box(
    axes: Axes,
    center: Point,
    size: tuple[float, float],
    title: str = "",
    detail: str = "",
    *,
    color: str = INK,
    dashed: bool = False,
) -> Box:
    """A rounded box of `size` (width, height) with a title and, below it in a smaller font, a detail."""
    place = Box(*center, *size)
    axes.add_patch(
        FancyBboxPatch(
            (place.left[0], place.bottom[1]),
            *size,
            boxstyle="round,pad=0,rounding_size=3",
            facecolor=tint(color),
            edgecolor=color,
            linewidth=0.9,
            linestyle=(0, (3, 2)) if dashed else "solid",
        )
    )
    write(axes, center, title, detail)
    return place


def sheets(
    axes: Axes, center: Point, size: tuple[float, float], count: int = 3, *, color: str = INK, offset: float = 2.5
) -> Box:
    """A tensor: `count` sheets of `size`, each shifted by `offset`; the returned box contains them all."""
    depth = offset * (count - 1)
    place = Box(*center, size[0] + depth, size[1] + depth)
    for index in reversed(range(count)):
        corner = place.left[0] + index * offset, place.bottom[1] + index * offset
        axes.add_patch(Rectangle(corner, *size, facecolor=tint(color, 0.35), edgecolor=color, linewidth=0.8))
    return place


def symbol(axes: Axes, center: Point, text: str, *, radius: float = 6.0, color: str = INK) -> Box:
    """A circled operator, such as +."""
    axes.add_patch(Circle(center, radius, facecolor="white", edgecolor=color, linewidth=0.9))
    axes.text(*center, text, ha="center", va="center_baseline", fontsize=1.4 * radius, color=color)
    return Box(*center, 2 * radius, 2 * radius)


def arrow(axes: Axes, *points: Point, color: str = INK, dashed: bool = False, head: bool = True) -> None:
    """A line through `points`, with a head at the last one."""
    axes.add_patch(
        FancyArrowPatch(
            path=Path(points),
            arrowstyle="-|>,head_length=3.2,head_width=1.7" if head else "-",
            mutation_scale=1,
            shrinkA=0,
            shrinkB=0,
            facecolor=color,
            edgecolor=color,
            linewidth=0.9,
            linestyle=(0, (3, 2)) if dashed else "solid",
            joinstyle="round",
            zorder=0.9,
        )
    )


def around(members: Sequence[Box], *, pad: float, head: float = 0.0) -> Box:
    """The rectangle around `members`, `pad` wider on each side, and `head` higher."""
    left, right = (min(b.left[0] for b in members) - pad, max(b.right[0] for b in members) + pad)
    bottom, top = (min(b.bottom[1] for b in members) - pad, max(b.top[1] for b in members) + pad + head)
    return Box((left + right) / 2, (bottom + top) / 2, right - left, top - bottom)


def frame(axes: Axes, members: Sequence[Box], title: str, detail: str = "", *, color: str, pad: float = 6.0) -> Box:
    """A light background for `members`, `pad` wider on each side, with a title and a detail above them."""
    place = around(members, pad=pad, head=11 + 9 * bool(detail))
    axes.add_patch(
        FancyBboxPatch(
            (place.left[0], place.bottom[1]),
            place.width,
            place.height,
            boxstyle="round,pad=0,rounding_size=5",
            facecolor=tint(color, 0.08),
            edgecolor=tint(color, 0.5),
            linewidth=0.8,
            zorder=0.5,
        )
    )
    x, y = place.left[0] + pad, place.top[1] - 9
    axes.text(x, y, title, ha="left", va="center", fontsize=TEXT, fontweight="bold", color=shade(color))
    axes.text(x, y - 9, detail, ha="left", va="center", fontsize=DETAIL, color=FAINT)
    return place


def write(axes: Axes, center: Point, title: str = "", detail: str = "", *, align: str = "center") -> None:
    """A title and a detail below it, each of any number of lines, vertically centred on the point."""
    lines = [(line, TEXT, INK) for line in title.split("\n") if line]
    lines += [(line, DETAIL, FAINT) for line in detail.split("\n") if line]
    y = center[1] + sum(1.25 * size for _, size, _ in lines) / 2
    for line, size, color in lines:
        axes.text(center[0], y - 0.625 * size, line, ha=align, va="center", fontsize=size, color=color)
        y -= 1.25 * size


def shade(color: str) -> str:
    """The colour, dark enough for text on white."""
    red, green, blue = (0.72 * part for part in matplotlib.colors.to_rgb(color))
    return matplotlib.colors.to_hex((red, green, blue))


def size_of(shape: Sequence[int]) -> str:
    """Height × width × channels (the paper's order) of a tensor's shape [(B,) C, H, W]."""
    channels, height, width = shape[-3:]
    return f"{height} × {width} × {channels}"


def in_millions(part: nn.Module) -> str:
    """The number of parameters of a module, in millions; in thousands if it would read 0.0."""
    count = num_parameters(part)
    return f"{count / 1e6:.1f} M" if count >= 50_000 else f"{count / 1e3:.1f} k"
