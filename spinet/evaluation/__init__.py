"""§5.1 The measures of the paper, equal to the official code: PQ, AP and mIoU.

PQ equals panopticapi's. AP equals that of cityscapesscripts on Cityscapes, and that of pycocotools on other data. mIoU
equals that of cityscapesscripts.

Each measure is an accumulator: `update` adds an image, `merge` adds another process's images, `result` computes scores.
"""

from spinet.evaluation.average_precision import AveragePrecision
from spinet.evaluation.cityscapes_precision import CityscapesPrecision
from spinet.evaluation.mean_iou import MeanIoU
from spinet.evaluation.overlaps import EvaluationError
from spinet.evaluation.panoptic_files import evaluate_files, read_ids
from spinet.evaluation.panoptic_quality import PanopticQuality, summarize

__all__ = [
    "AveragePrecision",
    "CityscapesPrecision",
    "EvaluationError",
    "MeanIoU",
    "PanopticQuality",
    "evaluate_files",
    "read_ids",
    "summarize",
]
