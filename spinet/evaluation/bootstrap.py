"""How much PQ depends on the choice of the images: its spread over resampled validation sets."""

from __future__ import annotations

import numpy as np

from spinet.data.segments import Categories
from spinet.data.stream import stable_seed
from spinet.evaluation.panoptic_quality import FN, FP, IOU, TP

SAMPLES = 200
"""Number of resampled validation sets."""


class Bootstrap:
    """PQ of `SAMPLES` resampled sets of images.

    In a resampled set each image counts as often as a random number from the Poisson distribution of mean 1 says: the
    Poisson bootstrap (Chamandy et al. 2012). The number depends on the image's id alone. So all networks are judged on
    the same resampled sets, and the spread of a difference of two networks is known, too.

    `state`, float64 [S, C, 4], has the counts of `PanopticQuality.state` for each resampled set.
    """

    def __init__(self, categories: Categories) -> None:
        self.isthing = np.array([category.isthing for category in categories.all], dtype=bool)
        self.state = np.zeros((SAMPLES, len(categories.all), 4))

    def update(self, image_id: int | str, counts: np.ndarray) -> None:
        """Adds an image, by its counts from `PanopticQuality.update`."""
        numbers = np.random.default_rng(stable_seed("bootstrap", image_id)).poisson(1, SAMPLES)
        self.state += numbers[:, None, None] * counts

    def merge(self, other: Bootstrap) -> None:
        """Adds the images that another accumulator of the same categories has seen."""
        self.state += other.state

    def result(self) -> dict[str, list[float | None]]:
        """`PQ`, `PQ_th`, `PQ_st` of each resampled set, in percent; None where no class occurs."""
        size = self.state[..., TP] + 0.5 * self.state[..., FP] + 0.5 * self.state[..., FN]
        occurs = size > 0
        quality = np.divide(self.state[..., IOU], size, out=np.zeros_like(size), where=occurs)
        found = {}
        for name, kind in {"PQ": True, "PQ_th": self.isthing, "PQ_st": ~self.isthing}.items():
            members = occurs & kind
            sums, numbers = (quality * members).sum(axis=1), members.sum(axis=1)
            found[name] = [round(100 * s / n, 2) if n else None for s, n in zip(sums, numbers.tolist(), strict=True)]
        return found
