"""§5.1 Overlaps of two maps: pairs of values and their numbers of pixels. Every measure counts them."""

from __future__ import annotations

import numpy as np


class EvaluationError(ValueError):
    """The input cannot be evaluated; the message names the location, the value and a remedy."""


def overlaps(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Runs of pixels along which neither map changes: value in `a` [R], value in `b` [R], number of pixels [R].

    Both maps are integer [H, W]; a pair of values has several runs. Segments are large, so there are about 100 times
    fewer runs than pixels, and later steps are cheap.
    """
    a, b = np.asarray(a), np.asarray(b)
    if a.ndim != 2 or a.shape != b.shape:
        raise EvaluationError(f"the maps have the sizes {a.shape} and {b.shape}: give two of the same H x W")
    if a.dtype.kind not in "iu" or b.dtype.kind not in "iu":
        raise EvaluationError(f"the maps have the types {a.dtype} and {b.dtype}: give integers")
    if a.size == 0:
        raise EvaluationError(f"the maps have the size {a.shape}: there is no pixel to evaluate")
    a, b = a.ravel(), b.ravel()
    ends = np.append(np.flatnonzero((a[1:] != a[:-1]) | (b[1:] != b[:-1])), a.size - 1)
    return a[ends], b[ends], np.diff(ends, prepend=-1)
