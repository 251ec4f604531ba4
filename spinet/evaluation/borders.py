"""Borders between classes: precision and recall of border pixels within a tolerance, as for contour detection."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from jaxtyping import Bool


class BorderScore:
    """F-score of borders over images, for each of several maps of an image, such as several thresholds.

    Args:
        tolerance: pixels that a border may be off by.
        maps: number of maps of each image.
    """

    def __init__(self, *, tolerance: int, maps: int = 1):
        y, x = np.ogrid[-tolerance : tolerance + 1, -tolerance : tolerance + 1]
        self.disc = (x**2 + y**2 <= tolerance**2).astype(np.uint8)
        self.counts = np.zeros((maps, 4))  # border pixels found, of these near a true one; true ones, of these found

    def update(
        self,
        true: Bool[np.ndarray, "H W"],
        found: Sequence[Bool[np.ndarray, "H W"]],
        unknown: Bool[np.ndarray, "H W"],
    ) -> None:
        """Counts an image: its border pixels, those of each map, and pixels near void, where the truth is unknown."""
        judged, close = ~self._near(unknown), self._near(true)
        for counts, border in zip(self.counts, found, strict=True):
            border = border & judged
            counts += border.sum(), (border & close).sum(), true.sum(), (true & self._near(border)).sum()

    def result(self) -> list[float] | None:
        """F-score, 0 … 1, of each map, of counts summed over the images; None if these have no border."""
        found, right, true, hit = self.counts.T
        if not true.any():
            return None
        precision, recall = right / np.maximum(found, 1), hit / true
        return (2 * precision * recall / np.maximum(precision + recall, 1e-12)).tolist()

    def _near(self, mask: Bool[np.ndarray, "H W"]) -> Bool[np.ndarray, "H W"]:
        return cv2.dilate(mask.astype(np.uint8), self.disc).astype(bool)
