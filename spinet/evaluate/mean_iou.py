"""§5.1 Mean IoU of the classes, as Cityscapes counts it: one confusion matrix over all pixels of all images."""

from __future__ import annotations

from typing import Any

import numpy as np

from spinet.evaluate.overlaps import EvaluationError, overlaps


class MeanIoU:
    """Sums over images a confusion matrix `state`, int64 [C, C + 1]: true labels, predicted labels and "no label"."""

    def __init__(self, num_classes: int, *, ignore: tuple[int, ...] = (255, -1)) -> None:
        if any(0 <= label < num_classes for label in ignore):
            raise EvaluationError(f"the ignored labels {ignore} lie among 0 … {num_classes - 1}: choose others")
        self.num_classes, self.ignore = num_classes, ignore
        self.state = np.zeros((num_classes, num_classes + 1), dtype=np.int64)

    def update(self, gt_labels: np.ndarray, pred_labels: np.ndarray) -> None:
        """Adds one image: integer [H, W], labels 0 … C-1 or one of `ignore`.

        An ignored label in the ground truth takes the pixel out; in the prediction it counts as missed. Raises
        `EvaluationError` on any other label.
        """
        gt, pred, pixels = overlaps(gt_labels, pred_labels)
        kept = ~np.isin(gt, self.ignore)
        gt, pred, pixels = gt[kept].astype(np.int64), pred[kept].astype(np.int64), pixels[kept]
        pred[np.isin(pred, self.ignore)] = self.num_classes
        for side, labels, limit in (("ground truth", gt, self.num_classes), ("prediction", pred, self.num_classes + 1)):
            if labels.size and (labels.min() < 0 or labels.max() >= limit):
                raise EvaluationError(
                    f"{side}: labels {labels.min()} … {labels.max()}: give 0 … {self.num_classes - 1}, or one of "
                    f"{self.ignore}"
                )
        counts = np.bincount(gt * (self.num_classes + 1) + pred, pixels, self.state.size)
        self.state += counts.reshape(self.state.shape).astype(np.int64)

    def merge(self, other: MeanIoU) -> None:
        """Adds the images that another accumulator of the same classes has seen."""
        if other.state.shape != self.state.shape:
            raise EvaluationError(f"cannot merge {other.num_classes} classes into {self.num_classes}")
        self.state += other.state

    def result(self) -> dict[str, Any]:
        """`mIoU` and `per_class` [C], in 0 … 1; a class that never occurs is nan, and left out of the mean."""
        true_positive = np.diagonal(self.state)
        union = self.state.sum(axis=1) + self.state[:, : self.num_classes].sum(axis=0) - true_positive
        iou = np.divide(true_positive, union, out=np.full(self.num_classes, np.nan), where=union > 0)
        occurring = iou[union > 0]
        return {"mIoU": float(occurring.mean()) if occurring.size else float("nan"), "per_class": iou.tolist()}
