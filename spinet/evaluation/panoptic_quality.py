"""§5.1 Panoptic quality, equal to the official code of COCO (panopticapi) and of Cityscapes."""

from __future__ import annotations

import operator
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from spinet.data.segments import VOID, Categories
from spinet.evaluation.overlaps import EvaluationError, overlaps

Segment = Mapping[str, Any]
IOU, TP, FP, FN = range(4)

SIZES = (0, 8, 16, 32, 64, float("inf"))
"""Bounds of the groups of things by size, in pixels: the square root of a thing's area."""


class PanopticQuality:
    """Sums the counts for the panoptic quality of each class over images.

    `state`, float64 [C, 4], has one row per category, in the order of `categories.all`: the sum of the IoU of its
    matches, and the numbers of true positives, false positives and false negatives. `sizes`, int64 [S, 2], has the
    number of things in the ground truth in each group of `SIZES`, and how many of them are matched.
    """

    def __init__(self, categories: Categories) -> None:
        self.categories = categories
        self.isthing = np.array([category.isthing for category in categories.all], dtype=bool)
        self.state = np.zeros((len(categories.all), 4))
        self.sizes = np.zeros((len(SIZES) - 1, 2), dtype=np.int64)

    def update(
        self, gt_ids: np.ndarray, gt_segments: Sequence[Segment], pred_ids: np.ndarray, pred_segments: Sequence[Segment]
    ) -> np.ndarray:
        """Adds one image. Returns its part of `state`.

        `gt_ids`, `pred_ids`: integer [H, W], a segment's id at each pixel, 0 is void. The segments are as in the COCO
        panoptic format: `id`, `category_id`, and in the ground truth `iscrowd` (default 0) and `area` in pixels.
        A given `area` is not checked, as in the official code; without it the pixels are counted.

        Raises `EvaluationError` in the cases where the official code raises (a predicted segment without pixels, pixels
        without a segment, an unknown category), and for duplicate ids, different sizes, or ids that are not integers.
        Inconsistent ground truth counts as in the official code, with a warning: pixels whose id has no segment are
        neither void nor part of a segment; a segment without pixels counts as missed.
        """
        gt, gt_labels = self._read(gt_segments, "ground truth")
        pred, pred_labels = self._read(pred_segments, "prediction")
        crowd = np.array([segment.get("iscrowd", 0) == 1 for segment in gt_segments], dtype=bool)

        gt_runs, pred_runs, pixels = overlaps(gt_ids, pred_ids)
        # row or column 0: void; 1 … K: the segments; K + 1: any other id
        rows, columns = _positions(gt, gt_runs), _positions(pred, pred_runs)
        shape = len(gt) + 2, len(pred) + 2
        counts = np.bincount(rows * shape[1] + columns, pixels, shape[0] * shape[1]).reshape(shape)
        _check_pixels(gt, pred, counts, gt_runs[rows == len(gt) + 1], pred_runs[columns == len(pred) + 1])

        intersection, void = counts[1:-1, 1:-1], counts[0, 1:-1]
        gt_area, pred_area = counts[1:-1].sum(axis=1), counts[:, 1:-1].sum(axis=0)
        for i, segment in enumerate(gt_segments):
            if "area" in segment:
                gt_area[i] = _area(segment)

        # IoU of each pair of the same class; pixels of a prediction on void are not in the union
        union = gt_area[:, None] + pred_area - intersection - void
        comparable = (gt_labels[:, None] == pred_labels) & ~crowd[:, None] & (intersection > 0)
        with np.errstate(divide="ignore"):
            iou = np.divide(intersection, union, out=np.zeros_like(union), where=comparable)
        gt_hit, pred_hit = np.nonzero(iou > 0.5)

        missed = ~crowd
        missed[gt_hit] = False

        # ignore a prediction if most of it lies on void or a crowd of its class; of several crowds the last one counts
        crowd_row = np.zeros(len(self.state), dtype=int)
        crowd_row[gt_labels[crowd]] = 1 + np.flatnonzero(crowd)
        row = crowd_row[pred_labels]
        ignored = void + np.where(row > 0, counts[row, 1 + np.arange(len(pred))], 0)
        wrong = ~(ignored / pred_area > 0.5)
        wrong[pred_hit] = False

        def per_class(labels: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
            return np.bincount(labels, weights, minlength=len(self.state))

        counts = np.zeros_like(self.state)
        counts[:, IOU] = per_class(gt_labels[gt_hit], iou[gt_hit, pred_hit])
        counts[:, TP] = per_class(gt_labels[gt_hit])
        counts[:, FP] = per_class(pred_labels[wrong])
        counts[:, FN] = per_class(gt_labels[missed])
        self.state += counts
        things = self.isthing[gt_labels] & ~crowd
        for column, chosen in enumerate((things, things & ~missed)):
            self.sizes[:, column] += np.histogram(np.sqrt(gt_area[chosen]), SIZES)[0]
        return counts

    def merge(self, other: PanopticQuality) -> None:
        """Adds the images that another accumulator of the same categories has seen."""
        if other.categories != self.categories:
            raise EvaluationError("the accumulators have different categories: evaluate one data set at a time")
        self.state += other.state
        self.sizes += other.sizes

    def result(self) -> dict[str, Any]:
        """Means over the classes that occur in the ground truth or the predictions, in 0 … 1.

        `All`, `Things`, `Stuff`: `pq`, `sq`, `rq`, and `n`, the number of classes in the mean; nan if there is none
        (where the official code divides by zero). `per_class`, by category id: `name`, `isthing`, `pq`, `sq`, `rq`,
        `iou`, `tp`, `fp`, `fn`; a class that does not occur reads 0, as in the official code. `sizes`: `number` of
        things and how many are `found`, by the lower bound of their size in pixels (`SIZES`).
        """
        iou, tp, fp, fn = self.state.T
        size = tp + 0.5 * fp + 0.5 * fn
        occurs = size > 0
        qualities = np.stack([_ratio(iou, size), _ratio(iou, tp), _ratio(tp, size)])  # pq, sq, rq: [3, C]

        result: dict[str, Any] = {}
        for name, kind in {"All": True, "Things": self.isthing, "Stuff": ~self.isthing}.items():
            members = qualities[:, occurs & kind]
            means = members.mean(axis=1).tolist() if members.size else [float("nan")] * 3
            result[name] = dict(zip(("pq", "sq", "rq"), means, strict=True)) | {"n": members.shape[1]}
        result["per_class"] = {
            category.id: {
                "name": category.name,
                "isthing": category.isthing,
                **dict(zip(("pq", "sq", "rq"), values, strict=True)),
                "iou": float(state[IOU]),
                **{key: int(state[column]) for key, column in (("tp", TP), ("fp", FP), ("fn", FN))},
            }
            for category, values, state in zip(self.categories.all, qualities.T.tolist(), self.state, strict=True)
        }
        groups = zip(SIZES, self.sizes.tolist(), strict=False)
        result["sizes"] = {str(low): dict(zip(("number", "found"), counts, strict=True)) for low, counts in groups}
        return result

    def _read(self, segments: Sequence[Segment], side: str) -> tuple[np.ndarray, np.ndarray]:
        """Checks segments and returns their ids and labels, int64 [K]."""
        ids, labels = [], []
        for segment in segments:
            try:
                id_, category_id = (_integer(segment[key]) for key in ("id", "category_id"))
            except (KeyError, TypeError) as error:
                raise EvaluationError(
                    f"{side}: segment {segment!r} needs integers `id` and `category_id` ({error})"
                ) from None
            if id_ <= VOID:
                raise EvaluationError(f"{side}: segment id {id_} is not positive: 0 is void, number segments from 1")
            if category_id not in self.categories.label_of:
                raise EvaluationError(
                    f"{side}: segment {id_} has the unknown category_id {category_id}: use the data set's "
                    "category ids, not labels"
                )
            ids.append(id_)
            labels.append(self.categories.label_of[category_id])
        if repeated := _repeated(ids):
            raise EvaluationError(f"{side}: segment id {repeated[0]} is listed twice: give each segment its own id")
        return np.array(ids, dtype=np.int64), np.array(labels, dtype=np.int64)


def summarize(result: Mapping[str, Any]) -> dict[str, float]:
    """The paper's columns in percent, `PQ`, `PQ_th`, `PQ_st`, `SQ`, `RQ`, from a `PanopticQuality.result`."""
    columns = {
        "PQ": ("All", "pq"),
        "PQ_th": ("Things", "pq"),
        "PQ_st": ("Stuff", "pq"),
        "SQ": ("All", "sq"),
        "RQ": ("All", "rq"),
    }
    return {name: 100 * result[group][key] for name, (group, key) in columns.items()}


def _positions(ids: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Index of each value in (VOID, *ids), or one past the end if it is absent."""
    table = np.concatenate([[VOID], ids])
    order = np.argsort(table)
    found = order[np.minimum(np.searchsorted(table[order], values), len(ids))]
    return np.where(table[found] == values, found, len(table))


def _check_pixels(
    gt: np.ndarray, pred: np.ndarray, counts: np.ndarray, gt_strangers: np.ndarray, pred_strangers: np.ndarray
) -> None:
    if pred_strangers.size:
        raise EvaluationError(
            f"prediction: {_some(pred_strangers)} in the map but not among the segments: list every segment, write 0 "
            "where nothing is predicted"
        )
    if len(absent := pred[counts[:, 1:-1].sum(axis=0) == 0]):
        raise EvaluationError(
            f"prediction: {_some(absent)} among the segments but not in the map: drop segments without pixels"
        )
    if gt_strangers.size:
        warnings.warn(
            f"ground truth: {_some(gt_strangers)} in the map but not among the segments", RuntimeWarning, stacklevel=3
        )
    if len(absent := gt[counts[1:-1].sum(axis=1) == 0]):
        warnings.warn(
            f"ground truth: {_some(absent)} among the segments but not in the map", RuntimeWarning, stacklevel=3
        )


def _some(ids: np.ndarray) -> str:
    ids = np.unique(ids)
    named = ", ".join(str(i) for i in ids[:5])
    return f"segment id {named} is" if len(ids) == 1 else f"segment ids {named}{' …' if len(ids) > 5 else ''} are"


def _integer(value: Any) -> int:
    if isinstance(value, bool):
        raise TypeError("bool is not an id")
    return operator.index(value)


def _area(segment: Segment) -> float:
    area = segment["area"]
    if not isinstance(area, int | float | np.integer | np.floating) or not 0 <= area < float("inf"):
        raise EvaluationError(f"ground truth: segment {segment['id']} has the area {area!r}: give its number of pixels")
    return float(area)


def _repeated(values: Iterable[Any]) -> list[Any]:
    seen: set[Any] = set()
    return [value for value in values if value in seen or seen.add(value)]


def _ratio(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.divide(a, b, out=np.zeros_like(a), where=b > 0)
