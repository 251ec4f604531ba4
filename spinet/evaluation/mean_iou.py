"""§5.1 Mean IoU of the classes, as Cityscapes counts it: one confusion matrix over all pixels of all images."""

from __future__ import annotations

from typing import Any

import numpy as np

from spinet.evaluation.overlaps import EvaluationError, overlaps


class MeanIoU:
    """Sums a confusion matrix `state` over images, int64 [C, C + 1]: true label × predicted label, or no label."""

    def __init__(self, num_classes: int, *, ignore: tuple[int, ...] = (255, -1)) -> None:
        if any(0 <= label < num_classes for label in ignore):
            raise EvaluationError(f"the ignored labels {ignore} lie among 0 … {num_classes - 1}: choose others")
        self.num_classes, self.ignore = num_classes, ignore
        self.state = np.zeros((num_classes, num_classes + 1), dtype=np.int64)

    def update(self, gt_labels: np.ndarray, pred_labels: np.ndarray) -> None:
        """Adds one image: integer [H, W], labels 0 … C-1 or one of `ignore`.

        A pixel whose true label is ignored does not count. A pixel whose predicted label is ignored counts as missed.
        Raises `EvaluationError` for any other label.
        """
        gt, pred, pixels = overlaps(gt_labels, pred_labels)
        gt, pred = self._classes(gt, "ground truth"), self._classes(pred, "prediction")
        kept = gt < self.num_classes
        gt, pred, pixels = gt[kept], pred[kept], pixels[kept]
        counts = np.bincount(gt * (self.num_classes + 1) + pred, pixels, self.state.size)
        self.state += counts.reshape(self.state.shape).astype(np.int64)

    def merge(self, other: MeanIoU) -> None:
        """Adds the images that another accumulator of the same classes has seen."""
        if other.state.shape != self.state.shape:
            raise EvaluationError(f"cannot merge {other.num_classes} classes into {self.num_classes}")
        self.state += other.state

    def result(self) -> dict[str, Any]:
        """`mIoU` and `per_class` [C], in 0 … 1; a class that never occurs is nan and is not in the mean."""
        true_positive = np.diagonal(self.state)
        union = self.state.sum(axis=1) + self.state[:, : self.num_classes].sum(axis=0) - true_positive
        iou = np.divide(true_positive, union, out=np.full(self.num_classes, np.nan), where=union > 0)
        occurring = iou[union > 0]
        return {"mIoU": float(occurring.mean()) if occurring.size else float("nan"), "per_class": iou.tolist()}

    def _classes(self, labels: np.ndarray, side: str) -> np.ndarray:
        """The labels, with C in place of each ignored label."""
        ignored = np.isin(labels, self.ignore)
        known = ignored | (labels >= 0) & (labels < self.num_classes)
        if not known.all():
            raise EvaluationError(
                f"{side}: label {labels[~known][0]}: give 0 … {self.num_classes - 1}, or one of {self.ignore}"
            )
        return np.where(ignored, self.num_classes, labels.astype(np.int64))
