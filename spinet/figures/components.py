"""Figures 3 and 4: the Panoptic-Feature generator and the auxiliary tasks, drawn from the code's own objects."""

from __future__ import annotations

from typing import Any

import matplotlib.colors
import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor, nn

from spinet.figures.boxes import Box, Point, arrow, box, canvas, frame, in_millions, sheets, size_of, symbol, write
from spinet.figures.style import COLORS, PAGE

LEVEL, COORDINATES, FEATURE = COLORS[0], COLORS[4], COLORS[3]
ANCHOR, NEGATIVE, CONTOUR = COLORS[5], COLORS[0], COLORS[2]


def principal_axes(phi: Float[Tensor, "D_phi h w"]) -> Float[Tensor, "D_phi 3"]:
    """The three directions in which the vectors of a feature map vary most."""
    points = _centred(phi)
    axes = torch.linalg.eigh(points @ points.T).eigenvectors[:, -3:].flip(1)
    return axes * axes.gather(0, axes.abs().argmax(0, keepdim=True)).sign()  # fix the sign of each eigenvector


def feature_picture(
    phi: Float[Tensor, "D_phi h w"], axes: Float[Tensor, "D_phi 3"] | None = None
) -> Float[np.ndarray, "h w 3"]:
    """Three components of a feature map as red, green and blue, 0 … 1.

    Args:
        axes: their directions; by default the principal axes of this feature map.
    """
    points = _centred(phi)
    values = (principal_axes(phi) if axes is None else axes).T @ points
    spread = values.std(1, keepdim=True).clamp(min=1e-12)
    colors = (0.5 + values / (4 * spread)).clamp(0, 1)  # two standard deviations to each side
    return colors.view(3, *phi.shape[1:]).permute(1, 2, 0).numpy()


def _centred(phi: Float[Tensor, "D_phi h w"]) -> Float[Tensor, "D_phi n"]:
    points = phi.detach().double().flatten(1)
    return points - points.mean(1, keepdim=True)


def figure_3(network: Any, size: tuple[int, int]) -> Figure:
    """Fig. 3: the Panoptic-Feature generator with the parameters of its layers and the shape of every tensor.

    Args:
        network: a SPINet; on the "meta" device nothing is computed.
        size: height, width of the image, in pixels.
    """
    generator = network.panoptic_feature
    levels, shapes = _run(network, size)
    step = 42.0
    rows = [step * (len(levels) - row) - 12 for row in range(len(levels))]
    figure, axes = canvas(PAGE, (rows[0] + 38) / 72)
    middle = (rows[0] + rows[-1]) / 2

    inside: list[Box] = []
    convolved: list[Box] = []
    for row, (y, name, level) in enumerate(zip(rows, network.feature_levels, levels, strict=True)):
        share = level[-1] / levels[0][-1]
        tensor = sheets(axes, (30, y), (30 * share, 15 * share), color=LEVEL)
        write(axes, (30, tensor.bottom[1] - 9), f"$P_{{{name[1:]}}}$", size_of(level))
        start = tensor.right
        factor = shapes[f"levels.{row}"][-1] // level[-1]
        if factor > 1:
            inside.append(box(axes, (95, y), (44, 21), f"resize ×{factor}", "bilinear", color=LEVEL))
            arrow(axes, start, inside[-1].left)
            start = inside[-1].right
        blocks = generator.levels[row]
        title = "3×3 conv" if len(blocks) == 1 else f"{len(blocks)} × (3×3 conv)"
        detail = f"GN, ReLU · {in_millions(blocks)}"
        convolved.append(box(axes, (160, y), (64, 22), title, detail, color=LEVEL))
        arrow(axes, start, convolved[-1].left)

    plus = symbol(axes, (214, middle), "+")
    for conv in convolved:
        if conv.y == middle:
            arrow(axes, conv.right, plus.left)
        else:
            arrow(axes, conv.right, (plus.x, conv.y), plus.top if conv.y > middle else plus.bottom)
    merged = sheets(axes, (246, middle), (28, 14), color=LEVEL)
    write(axes, (246, middle - 20), "", size_of(shapes["levels.0"]))
    arrow(axes, plus.right, merged.left)

    end = symbol(axes, (281, middle), "C")
    coordinates = sheets(axes, (281, middle - 50), (28, 14), color=COORDINATES)
    write(axes, (281, middle - 68), "coordinates", size_of(shapes["coordinates"]))
    arrow(axes, merged.right, end.left)
    arrow(axes, coordinates.top, end.bottom, color=COORDINATES)
    for x, block in zip((317, 366), generator.merge, strict=True):
        detail = f"GN, ReLU\n{in_millions(block)}"
        conv = box(axes, (x, middle), (40, 33), "3×3 conv", detail, color=FEATURE)
        arrow(axes, end.right, conv.left)
        inside.append(conv)
        end = conv
    _, height, width = shapes["merge"][-3:]
    title = f"all of this at stride {generator.STRIDE}: {height} × {width} cells"
    frame(axes, [*convolved, *inside], title, color=LEVEL)

    kernel = "×".join(str(side) for side in generator.deconvolution.kernel_size)
    detail = f"stride {generator.deconvolution.stride[0]}\n{in_millions(generator.deconvolution)}"
    last = box(axes, (424, middle), (46, 33), f"{kernel} deconv", detail, color=FEATURE)
    arrow(axes, end.right, last.left)
    phi = sheets(axes, (474, middle), (28, 20), count=4, color=FEATURE, offset=2)
    arrow(axes, last.right, phi.left)
    write(axes, (474, middle - 25), "φ", size_of(shapes["deconvolution"]))
    return figure


def figure_4(
    objective: nn.Module, *, image: UInt8[Tensor, "3 H W"], phi: Float[Tensor, "D_phi h w"], targets: Any
) -> Figure:
    """Fig. 4: the auxiliary tasks on one image: how a triplet is made, and the target of the contour head.

    Args:
        objective: an `Objective` with both auxiliary heads; only their sizes are drawn.
        image: RGB, padded as in the network.
        phi: the Panoptic-Feature of this image.
        targets: `Targets` of this image only.

    Raises:
        ValueError: no instance of the image has a negative.
    """
    figure, axes = canvas(PAGE, 4.15)
    pixels = image.permute(1, 2, 0).numpy()
    scene = _picture(axes, pixels, (56, 52), 100)
    write(axes, (56, scene.bottom[1] - 7), "", size_of(image.shape))
    feature = _picture(axes, feature_picture(phi), (186, 52), 100)
    write(axes, (186, feature.bottom[1] - 7), "", f"φ: {size_of(phi.shape)}")
    arrow(axes, scene.right, feature.left)
    write(axes, (121, 58), "", "SPINet")
    _triplet(axes, objective.intra, pixels, phi, targets.images[0], feature)
    _contour(axes, objective.inter, phi, targets.contour[0], feature)
    return figure


def _triplet(axes: Axes, head: Any, pixels: np.ndarray, phi: Tensor, targets: Any, feature: Box) -> None:
    """Eq. 3 to 5, in three lanes: anchor, positive, negative."""
    anchor, negative = _choose(targets)
    rows, columns = _around(targets.masks[[anchor, negative]].any(0))
    scale = pixels.shape[0] // phi.shape[1]
    part = pixels[rows.start * scale : rows.stop * scale, columns.start * scale : columns.stop * scale]
    y = 202.0
    lanes = (
        (y + 54, "$V_a$", "$M_k = m_k \\odot m_r$", targets.halves[0, anchor], ANCHOR),
        (y, "$V_p$", "$M'_k = m_k \\odot \\sim m_r$", targets.halves[1, anchor], ANCHOR),
        (y - 54, "$V_n$", "$M_j = m_j \\odot m_r$", targets.halves[0, negative], NEGATIVE),
    )
    crop = _picture(axes, part, (50, y), 76)
    for instance, color in ((anchor, ANCHOR), (negative, NEGATIVE)):
        mask = np.kron(targets.masks[instance, rows, columns], np.ones((scale, scale)))[::-1]
        axes.contour(mask, [0.5], extent=_extent(crop), colors=color, linewidths=1.2)
    write(axes, (50, crop.bottom[1] - 12), "$m_k$ and another, $m_j$", "Eq. 3: a random $m_r$")

    mean = box(axes, (222, y), (42, 138), "mean of φ\nover the\nmask", "Eq. 4", color=FEATURE)
    arrow(axes, (mean.x, feature.top[1]), mean.bottom, color=FEATURE)
    size = f"{head.fc.in_features} → {head.fc.out_features}\n{in_millions(head.fc)}"
    layer = box(axes, (334, y), (42, 138), "FC", size, color=FEATURE)
    loss = box(axes, (451, y), (86, 138), color=ANCHOR)
    for lane, name, formula, half, color in lanes:
        ink = np.where(half[rows, columns, None], matplotlib.colors.to_rgb(color), 0.93)
        mask = _picture(axes, ink, (146, lane), 62)
        write(axes, (146, mask.bottom[1] - 6), "", formula)
        arrow(axes, crop.right, (102, y), (102, lane), (mask.left[0], lane))
        vector = _picture(axes, phi[:, half].mean(1)[None].numpy(), (278, lane), 36, height=9)
        write(axes, (278, lane - 10), "", f"{len(phi)} numbers")
        point = symbol(axes, (383, lane), name, radius=8, color=color)
        for start, end in ((mask, mean), (mean, vector), (vector, layer), (layer, point), (point, loss)):
            arrow(axes, (start.right[0], lane), (end.left[0], lane), color=color)

    for x, color in ((424, ANCHOR), (450, ANCHOR), (472, NEGATIVE)):
        axes.plot(x, y + 44, "o", color=color, markersize=4.5)
    for start, end, color in ((428, 436, ANCHOR), (446, 438, ANCHOR), (476, 488, NEGATIVE)):
        style = {"arrowstyle": "-|>", "mutation_scale": 6, "color": color, "shrinkA": 0, "shrinkB": 0}
        axes.annotate("", (end, y + 44), (start, y + 44), arrowprops=style)
    write(axes, (451, y + 25), "", "pull together, push away")
    write(axes, (451, y - 2), "$d_p = -\\Vert V_a - V_p \\Vert$\n$d_n = -\\Vert V_a - V_n \\Vert$")
    write(axes, (451, y - 32), "$-\\log\\,\\dfrac{e^{d_p}}{e^{d_p} + e^{d_n}}$")
    write(axes, (451, y - 56), "", "Eq. 5")
    frame(axes, [crop, mean, loss, Box(146, y - 77, 62, 8)], "Intra-class triplet", color=ANCHOR, pad=8)


def _contour(axes: Axes, head: Any, phi: Tensor, contour: Tensor, feature: Box) -> None:
    """Eq. 6."""
    y = feature.y
    conv = box(axes, (274, y), (40, 30), "1×1 conv", in_millions(head.conv), color=FEATURE)
    maps = sheets(axes, (322, y), (26, 13), count=4, color=CONTOUR, offset=2)
    write(axes, (322, y - 18), "", size_of((head.conv.out_channels, *phi.shape[1:])))
    shuffle = box(axes, (370, y), (32, 34), "pixel\nshuffle", f"×{head.UPSCALE}", color=CONTOUR)
    guess = sheets(axes, (424, y + 21), (44, 22), count=1, color=CONTOUR)
    write(axes, (guess.x, guess.y), "$\\hat{y}$")
    write(axes, (guess.x, y + 4), "", size_of((1, *contour.shape)))
    truth = _picture(axes, 1 - contour.numpy(), (424, y - 14), 44, cmap="gray")
    write(axes, (truth.x, y - 31), "", "y: soft contour")
    loss = box(axes, (479, y + 3), (34, 58), "focal", "Eq. 6", color=ANCHOR)
    for start, end in ((feature, conv), (conv, maps), (maps, shuffle)):
        arrow(axes, start.right, end.left)
    arrow(axes, shuffle.right, (393, y), (393, guess.y), guess.left)
    for end in (guess, truth):
        arrow(axes, end.right, (loss.left[0], end.y))
    frame(axes, [conv, truth, loss, Box(truth.x, y - 31, 30, 4)], "Inter-class contour", color=CONTOUR)


def _run(network: Any, size: tuple[int, int]) -> tuple[list[torch.Size], dict[str, torch.Size]]:
    """Shapes of the generator's input levels, and of the output of each of its parts, by name."""
    generator: nn.Module = network.panoptic_feature
    levels: list[torch.Size] = []
    shapes: dict[str, torch.Size] = {}

    def first(name: str, out: Tensor) -> None:
        shapes.setdefault(name, out.shape)  # coordinates may be computed twice

    hooks = [generator.register_forward_pre_hook(lambda _, given: levels.extend(level.shape for level in given[0]))]
    for name, part in generator.named_modules():
        hooks.append(part.register_forward_hook(lambda _, __, out, name=name: first(name, out)))
    try:
        with torch.no_grad():
            network(torch.zeros(1, 3, *size, device=network.mean.device))
    finally:
        for hook in hooks:
            hook.remove()
    return levels, shapes


def _choose(targets: Any) -> tuple[int, int]:
    """The largest instance that has a negative, and the largest of its negatives."""
    area = targets.masks.sum((1, 2))
    if not targets.negatives.any():
        raise ValueError("no instance of this image has a negative; take an image with two things")
    anchor = int(area.masked_fill(~targets.negatives.any(1), -1).argmax())
    return anchor, int(area.masked_fill(~targets.negatives[anchor], -1).argmax())


def _around(mask: Bool[Tensor, "h w"], aspect: float = 1.7, pad: int = 2) -> tuple[slice, slice]:
    """Rows and columns of a window of width / height about `aspect` around the true cells, within the map."""
    rows, columns = (torch.nonzero(mask.any(axis)).flatten() for axis in (1, 0))
    sides = [int(cells[-1] - cells[0]) + 1 + 2 * pad for cells in (rows, columns)]
    height = max(sides[0], round(sides[1] / aspect))
    window = []
    for cells, side, limit in zip((rows, columns), (height, round(height * aspect)), mask.shape, strict=True):
        side = min(side, limit)
        start = min(max(0, int(cells[0] + cells[-1] + 1 - side) // 2), limit - side)
        window.append(slice(start, start + side))
    return window[0], window[1]


def _picture(
    axes: Axes, pixels: np.ndarray, center: Point, width: float, *, height: float | None = None, cmap: str = "viridis"
) -> Box:
    """An image in a thin frame, `width` points wide; `height` defaults to the image's proportions."""
    place = Box(*center, width, height or width * pixels.shape[0] / pixels.shape[1])
    axes.imshow(pixels, extent=_extent(place), aspect="auto", cmap=cmap, zorder=2)
    axes.add_patch(Rectangle((place.left[0], place.bottom[1]), place.width, place.height, fill=False, lw=0.6, zorder=3))
    return place


def _extent(place: Box) -> tuple[float, float, float, float]:
    return place.left[0], place.right[0], place.bottom[1], place.top[1]
