"""Scores of class borders: precision and recall of border pixels within a tolerance, as in contour detection."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from jaxtyping import Bool


class BorderScore:
    """F-score of borders over images, for several border maps of each image, such as one for each threshold.

    Args:
        tolerance: allowed distance to the true border, in pixels.
        maps: number of border maps of each image.
    """

    def __init__(self, *, tolerance: int, maps: int = 1):
        y, x = np.ogrid[-tolerance : tolerance + 1, -tolerance : tolerance + 1]
        self.disc = (x**2 + y**2 <= tolerance**2).astype(np.uint8)
        # found border pixels, those near a true one, true border pixels, those near a found one
        self.counts = np.zeros((maps, 4))

    def update(
        self,
        true: Bool[np.ndarray, "H W"],
        found: Sequence[Bool[np.ndarray, "H W"]],
        unknown: Bool[np.ndarray, "H W"],
    ) -> None:
        """Adds one image: true border, border in each map, void pixels. Borders found near void are ignored."""
        judged, close = ~self._near(unknown), self._near(true)
        for counts, border in zip(self.counts, found, strict=True):
            border = border & judged
            counts += border.sum(), (border & close).sum(), true.sum(), (true & self._near(border)).sum()

    def result(self) -> list[float] | None:
        """F-score of each map, 0 … 1, from counts summed over the images; None if there is no true border."""
        found, right, true, hit = self.counts.T
        if not true.any():
            return None
        precision, recall = right / np.maximum(found, 1), hit / true
        return (2 * precision * recall / np.maximum(precision + recall, 1e-12)).tolist()

    def _near(self, mask: Bool[np.ndarray, "H W"]) -> Bool[np.ndarray, "H W"]:
        return cv2.dilate(mask.astype(np.uint8), self.disc).astype(bool)
