"""Figures 1 and 2 of the paper: designs for things and stuff, and the network with the shapes of its tensors."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Literal

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from spinet.figures.boxes import (
    DETAIL,
    FAINT,
    INK,
    TEXT,
    Box,
    Point,
    around,
    arrow,
    box,
    canvas,
    frame,
    in_millions,
    sheets,
    size_of,
    symbol,
    tint,
    write,
)
from spinet.figures.shapes import Shape, Shapes, shapes
from spinet.figures.style import COLORS, PAGE

BLUE, ORANGE, GREEN, PINK, SKY = COLORS[0], COLORS[1], COLORS[2], COLORS[3], COLORS[4]
THINGS, STUFF, BOTH = ORANGE, GREEN, PINK
"""Colours of parts for things, for stuff, and for both."""

LEVELS = ("P2", "P3", "P4", "P5", "P6")
"""Largest set of pyramid levels in Fig. 2: those of §3.1."""


def figure_1() -> Figure:
    """Fig. 1: four ways to connect the paths of things (I) and stuff (S), with the methods that §1 cites."""
    figure, axes = canvas(PAGE, 2.72)
    ways = (
        ("(a) apart", "Panoptic-FPN, Seamless,\nPanoptic-DeepLab"),
        ("(b) a module joins the results", "Li et al., UPSNet"),
        ("(c) linked branches", "AUNet, BANet, BGRNet"),
        ("(d) one path", "SPINet"),
    )
    ends = []
    for place, (title, methods) in enumerate(ways):
        x = 63 + 126 * place
        write(axes, (x, 187), title)
        write(axes, (x, 9), "", methods)
        backbone = box(axes, (x, 166), (64, 15), "backbone", color=FAINT)
        ends.append((backbone, _scene(axes, (x, 35), (58, 27), things=True, stuff=True)))
    _branches(axes, *ends[0])
    _branches(axes, *ends[1], joined=True)
    _branches(axes, *ends[2], linked=True)
    _one_path(axes, *ends[3])
    return figure


def _branches(axes: Axes, backbone: Box, panoptic: Box, *, joined: bool = False, linked: bool = False) -> None:
    x = backbone.x
    things = box(axes, (x - 32, 135), (44, 17), "I: things", color=THINGS)
    stuff = box(axes, (x + 32, 135), (44, 17), "S: stuff", color=STUFF)
    found = _scene(axes, (x - 32, 98), (50, 24), things=True, stuff=False)
    labelled = _scene(axes, (x + 32, 98), (50, 24), things=False, stuff=True)
    goal = panoptic
    if joined:
        goal = box(axes, (x, 65), (44, 15), "M", color=BOTH)
        arrow(axes, goal.bottom, panoptic.top)
    if linked:
        arrow(axes, (things.right[0], 138), (stuff.left[0], 138))
        arrow(axes, (stuff.left[0], 132), (things.right[0], 132))
    for branch, result in ((things, found), (stuff, labelled)):
        arrow(axes, backbone.bottom, (x, 150.5), (branch.x, 150.5), branch.top)
        arrow(axes, branch.bottom, result.top)
        arrow(axes, result.bottom, (result.x, 79), (x, 79), goal.top)


def _one_path(axes: Axes, backbone: Box, panoptic: Box) -> None:
    x = backbone.x
    both = box(axes, (x, 135), (108, 17), "I and S", color=BOTH)
    phi = sheets(axes, (x, 98), (44, 20), 4, color=BOTH)
    write(axes, (x + 31, 98), "φ", align="left")
    write(axes, (x + 5, 66), "", "one convolution", align="left")
    for start, end in pairwise((backbone, both, phi, panoptic)):
        arrow(axes, start.bottom, end.top)


def _scene(axes: Axes, center: Point, size: tuple[float, float], *, things: bool, stuff: bool) -> Box:
    """A small street scene: road, houses and sky in shades of one colour, two cars and a pedestrian in another."""
    place = Box(*center, *size)
    x, y = place.left[0], place.bottom[1]

    def patch(left: float, bottom: float, width: float, height: float, **look: Any) -> Rectangle:
        return Rectangle((x + left * size[0], y + bottom * size[1]), width * size[0], height * size[1], **look)

    if stuff:
        for bottom, height, strength in ((0, 0.36, 0.75), (0.36, 0.38, 0.45), (0.74, 0.26, 0.18)):
            axes.add_patch(patch(0, bottom, 1, height, facecolor=tint(STUFF, strength), linewidth=0))
    if things:
        objects = ((0.76, 0.16, 0.09, 0.50, 1.0), (0.34, 0.24, 0.28, 0.28, 0.5), (0.07, 0.12, 0.34, 0.34, 1.0))
        for left, bottom, width, height, strength in objects:
            look = {"facecolor": tint(THINGS, strength), "edgecolor": "white", "linewidth": 0.8}
            axes.add_patch(patch(left, bottom, width, height, **look))
    axes.add_patch(patch(0, 0, 1, 1, facecolor="none", edgecolor=INK, linewidth=0.8))
    return place


Part = Literal["fpn", "filter_sampling", "panoptic_feature", "single_shot"]
"""A part of Fig. 2 that can be highlighted."""


def figure_2(network: Any, size: tuple[int, int], *, here: Part | None = None) -> Figure:
    """Fig. 2: the network's parts with their parameters, and the shape of every tensor between them.

    n is the number of locations whose filters are sampled.

    Args:
        network: an integrated SPINet that reads P2 … P5, or P6 too; on the "meta" device nothing is computed.
        size: height, width of the image, in pixels.
        here: the part that the reader is at; the others become pale.

    Raises:
        ValueError: the network does not read these levels.
    """
    found = shapes(network, size)
    if found.pyramid.keys() - set(LEVELS) or found.classes.keys() != found.pyramid.keys():
        raise ValueError(
            f"Fig. 2 shows a network whose modules both read P2-P5 or P2-P6, not {', '.join(found.pyramid)}"
        )
    figure, axes = canvas(PAGE, 3.7)
    parts: dict[Part, Box] = {"fpn": _backbone_and_pyramid(axes, network, found)}
    parts["filter_sampling"], thing_filters = _filter_sampling(axes, network, found, parts["fpn"])
    parts["panoptic_feature"], phi = _generator(axes, network, found, parts["fpn"])
    parts["single_shot"] = _single_shot(axes, found, phi, thing_filters)
    if here:
        _highlight(axes, parts[here])
    return figure


def _backbone_and_pyramid(axes: Axes, network: Any, found: Shapes) -> Box:
    pitch = 130 / (len(found.pyramid) - 1)
    height = {level[1]: 180 - pitch * row for row, level in enumerate(LEVELS)}
    size = 66, min(26, pitch - 9)

    def column(x: float, maps: dict[str, Shape], color: str) -> dict[str, Box]:
        return {
            name[1]: box(axes, (x, height[name[1]]), size, _symbol(name), size_of(shape), color=color)
            for name, shape in maps.items()
        }

    c, p = column(43, found.backbone, FAINT), column(135, found.pyramid, BLUE)
    backbone = frame(axes, list(c.values()), "Backbone §5.2", in_millions(network.backbone), color=INK, pad=5)
    image = sheets(axes, (43, 241), (66, 26), 1, color=FAINT)
    write(axes, (43, 241), "image", size_of(found.image))
    arrow(axes, image.bottom, backbone.top)
    for upper, lower in pairwise(c):
        arrow(axes, c[upper].bottom, c[lower].top)
        arrow(axes, p[lower].top, p[upper].bottom)
    for name in c:
        arrow(axes, c[name].right, p[name].left)
    if "6" in p:  # P6 is computed from C5, like P5
        arrow(axes, c["5"].bottom, (c["5"].x, p["6"].y), p["6"].left)
    axes.text(89, c["2"].y + 2, "½", ha="center", va="bottom", fontsize=DETAIL, color=INK)
    return frame(axes, list(p.values()), "FPN §3.1", in_millions(network.fpn), color=BLUE, pad=5)


def _filter_sampling(axes: Axes, network: Any, found: Shapes, pyramid: Box) -> tuple[Box, Box]:
    module = network.filter_sampling
    k, n_t, d_f = module.kernel, found.classes["P2"][0], found.filters["P2"][0]
    class_head = box(axes, (240, 222), (64, 28), "class head", in_millions(module.class_head), color=THINGS)
    filter_head = box(axes, (240, 168), (64, 28), "filter head", in_millions(module.filter_head), color=THINGS)
    coordinates = box(axes, (240, 136), (64, 14), "coordinates", color=SKY)
    c_l = sheets(axes, (316, 226), (34, 17), len(found.classes), color=THINGS)
    write(axes, (314, 208), "", f"$C_l$: $H_l$ × $W_l$ × {n_t}")
    f_l = sheets(axes, (316, 172), (34, 17), len(found.filters), color=THINGS)
    write(axes, (314, 154), "", f"$F_l$: $H_l$ × $W_l$ × {d_f}")
    pool = box(axes, (394, 172), (62, 28), f"{k} × {k} at peaks", f"n × {found.pooled[0]}", color=THINGS)
    fc = box(axes, (463, 172), (42, 28), "FC", in_millions(module.fc), color=THINGS)
    arrow(axes, class_head.right, (c_l.left[0], class_head.y))
    arrow(axes, filter_head.right, (f_l.left[0], filter_head.y))
    arrow(axes, coordinates.top, filter_head.bottom)
    arrow(axes, c_l.right, (pool.x, c_l.y), pool.top)
    write(axes, (398, 208), "", "confidence\n> threshold", align="left")
    arrow(axes, f_l.right, pool.left)
    arrow(axes, pool.right, fc.left)
    members = [class_head, filter_head, coordinates, c_l, fc]
    module_frame = frame(axes, members, f"Filter sampling module §3.2 · {in_millions(module)}", color=THINGS)
    bend = pyramid.right[0] + 7
    for head in (class_head, filter_head):
        arrow(axes, (pyramid.right[0], 180), (bend, 180), (bend, head.y), head.left)
    write(axes, (bend + 2.5, 192), "", _levels(network.filter_levels), align="left")
    result = box(axes, (463, 98), (72, 28), "thing filters", f"n × {_sides(found.thing_filter)}", color=THINGS)
    arrow(axes, fc.bottom, result.top)
    return module_frame, result


def _generator(axes: Axes, network: Any, found: Shapes, pyramid: Box) -> tuple[Box, Box]:
    strides = f"stride {network.panoptic_feature.STRIDE} → {network.PHI_STRIDE}"
    merge = box(axes, (240, 40), (64, 28), "merge levels", strides, color=BOTH)
    coordinates = box(axes, (240, 72), (64, 14), "coordinates", color=SKY)
    phi = sheets(axes, (316, 48), (46, 24), 4, color=BOTH)
    write(axes, (314, 25.5), "", f"φ: {size_of(found.phi)}")
    arrow(axes, coordinates.bottom, merge.top)
    arrow(axes, merge.right, (phi.left[0], merge.y))
    title = f"Panoptic-Feature §3.3 · {in_millions(network.panoptic_feature)}"
    generator_frame = frame(axes, [merge, coordinates, phi], title, color=BOTH)
    arrow(axes, (pyramid.right[0], merge.y), merge.left)
    write(axes, (pyramid.right[0] + 15, merge.y + 6), "", _levels(network.feature_levels))
    return generator_frame, phi


def _single_shot(axes: Axes, found: Shapes, phi: Box, thing_filters: Box) -> Box:
    count, *one = found.stuff_filters
    stuff_filters = box(axes, (387, 98), (72, 28), "stuff filters", f"{count} × {_sides(one)}", color=STUFF)
    convolution = symbol(axes, (394, 48), "∗", color=INK)
    for filters in (thing_filters, stuff_filters):
        arrow(axes, filters.bottom, (filters.x, 77), (convolution.x, 77), convolution.top)
    arrow(axes, (phi.right[0], convolution.y), convolution.left)
    height, width = found.things[1:]
    members = [stuff_filters, thing_filters, convolution]
    for name, number, y, color in (("things", "n", 62, THINGS), ("stuff", count, 26, STUFF)):
        masks = sheets(axes, (463, y), (46, 15), 3, color=color)
        arrow(axes, convolution.right, (420, convolution.y), (420, y), masks.left)
        write(axes, (463, y - 15), "", f"{name}: {height} × {width} × {number}")
        members += [masks, Box(463, y - 15, 72, 8)]
    return around(members, pad=1)


def _highlight(axes: Axes, part: Box) -> None:
    """Makes everything pale except a part, which gets a border and the words "you are here"."""
    (left, bottom), (_, width), (_, height) = (part.left[0], part.bottom[1]), axes.get_xlim(), axes.get_ylim()
    right, top = left + part.width, bottom + part.height
    for x, y, to_x, to_y in (
        (0, 0, left, height),
        (right, 0, width, height),
        (left, 0, right, bottom),
        (left, top, right, height),
    ):
        pale = {"facecolor": "white", "alpha": 0.7, "linewidth": 0, "antialiased": False}
        axes.add_patch(Rectangle((x, y), to_x - x, to_y - y, zorder=4, **pale))
    border = {"facecolor": "none", "edgecolor": INK, "linewidth": 1.5}
    axes.add_patch(Rectangle((left, bottom), part.width, part.height, zorder=5, **border))
    axes.text(left, top + 5.5, "you are here", fontsize=TEXT, fontweight="bold", va="center", color=INK, zorder=5)


def _levels(levels: Sequence[str]) -> str:
    return f"{_symbol(levels[0])}–{_symbol(levels[-1])}"


def _symbol(level: str) -> str:
    return f"${level[0]}_{level[1]}$"


def _sides(shape: Sequence[int]) -> str:
    """k × k × D for a filter [D, k, k]."""
    return " × ".join(str(part) for part in (*shape[1:], shape[0]))
