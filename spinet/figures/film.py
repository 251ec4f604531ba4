"""A film of a training: what the network computes for one image after more and more iterations."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from spinet.data.overlay import draw_panoptic
from spinet.data.segments import Categories
from spinet.figures.style import PAGE, Figure, new_figure, to_png
from spinet.files import atomic_write
from spinet.inference.predict import Prediction


def film_frame(
    image: UInt8[np.ndarray, "H W 3"],
    prediction: Prediction,
    feature: Float[np.ndarray, "h w 3"],
    contour: Float[np.ndarray, "H W"],
    confidence: Float[np.ndarray, "h' w'"],
    categories: Categories,
    *,
    title: str,
) -> Figure:
    """A frame: the class head, φ, the contour head and the panoptic map at one moment of the training.

    Args:
        prediction: the panoptic map.
        feature: φ as an image, see `feature_picture`.
        contour: probability of a border between classes.
        confidence: the largest score of any thing class at each location.
        title: which moment it is.
    """
    height, width = image.shape[:2]
    figure = new_figure(PAGE, 0.55 + PAGE * height / width)
    panels = {
        "class head: a thing is here": confidence,
        "Panoptic-Feature φ, three components": feature,
        "contour head: classes meet here": contour,
        "panoptic map": draw_panoptic(image, prediction.ids, prediction.segments, categories),
    }
    for axes, (name, picture) in zip(figure.subplots(2, 2).flat, panels.items(), strict=True):
        axes.imshow(picture, cmap="magma", vmin=0, vmax=1, extent=(0, width, height, 0))
        axes.set_title(name)
        axes.set_axis_off()
    figure.suptitle(title, fontsize=10)
    return figure


def save_film(frames: Sequence[Figure], path: Path, *, seconds: float = 1.2) -> None:
    """Writes the frames as an endless animated WebP; the last frame stays three times as long."""
    pictures = [Image.open(io.BytesIO(to_png(figure))).convert("RGB") for figure in frames]
    for picture in pictures:
        picture.thumbnail((900, 900))
    times = [round(1000 * seconds)] * (len(pictures) - 1) + [round(3000 * seconds)]
    buffer = io.BytesIO()
    pictures[0].save(
        buffer, "webp", save_all=True, append_images=pictures[1:], duration=times, loop=0, quality=75, method=4
    )
    atomic_write(path, buffer.getvalue())
