"""§5.1 Average precision of the instances, computed by the official code of COCO (pycocotools)."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from pycocotools import mask as rle_codec
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from spinet.data.segments import Categories
from spinet.evaluation.overlaps import EvaluationError

SIZES = ("all", "small", "medium", "large")  # the official ranges: areas below 32², up to 96², and above


class AveragePrecision:
    """Collects things and predicted instances as run-length codes, a few hundred bytes each.

    `max_detections`: how many instances of each image and class count, highest scores first. COCO uses 100; images with
    hundreds of objects need more.
    """

    def __init__(self, categories: Categories, *, max_detections: int = 100) -> None:
        self.categories, self.max_detections = categories, max_detections
        self.images: dict[int | str, tuple[list[dict[str, Any]], list[dict[str, Any]]]] = {}  # things, instances

    def update(
        self,
        image_id: int | str,
        gt_ids: np.ndarray,
        gt_segments: Sequence[Mapping[str, Any]],
        instances: Sequence[Mapping[str, Any]],
    ) -> None:
        """Adds one image.

        `gt_ids`: integer [H, W] with the ids of `gt_segments` (`id`, `category_id`, `iscrowd`); stuff segments
        are ignored. `instances`: `category_id`, `score`, and `mask`, bool [H, W] or its run-length code by pycocotools.

        Raises `EvaluationError` if the image was added before, a category is not a thing, a score is not finite, or a
        mask has another size than the image.
        """
        if image_id in self.images:
            raise EvaluationError(f"image {image_id!r} was added before: add each image once")
        by_column = np.ascontiguousarray(np.asarray(gt_ids).T)  # run-length codes are column-major
        thing_ids = {category.id for category in self.categories.things}
        things = [
            {
                "category_id": segment["category_id"],
                "iscrowd": int(segment.get("iscrowd", 0) == 1),
                "segmentation": _encode((by_column == segment["id"]).T),
            }
            for segment in gt_segments
            if segment["category_id"] in thing_ids
        ]
        found = []
        for instance in instances:
            score = float(instance["score"])
            if instance["category_id"] not in thing_ids:
                raise EvaluationError(f"image {image_id!r}: category_id {instance['category_id']!r} is not a thing")
            if not np.isfinite(score):
                raise EvaluationError(f"image {image_id!r}: an instance has the score {score}: give a finite one")
            mask = instance["mask"]
            code = dict(mask) if isinstance(mask, Mapping) else _encode(np.asarray(mask))
            if tuple(code["size"]) != np.shape(gt_ids):
                raise EvaluationError(
                    f"image {image_id!r}: a mask has the size {tuple(code['size'])}, the image {np.shape(gt_ids)}"
                )
            found.append({"category_id": instance["category_id"], "score": score, "segmentation": code})
        self.images[image_id] = things, found

    def merge(self, other: AveragePrecision) -> None:
        """Adds the images that another accumulator of the same categories has seen (it can be pickled)."""
        if other.categories != self.categories:
            raise EvaluationError("the accumulators have different categories: evaluate one data set at a time")
        if both := self.images.keys() & other.images.keys():
            raise EvaluationError(
                f"image {min(both, key=str)!r} is in both accumulators: give each image to one process"
            )
        self.images |= other.images

    def result(self) -> dict[str, Any]:
        """`AP` (mean over IoU 0.50:0.95), `AP50`, `AP75`, `AP_small`, `AP_medium`, `AP_large`, in 0 … 1.

        `per_class`, by category id: `name`, `AP`, `AP50`. nan where there is no ground truth.
        """
        things = self.categories.things
        precision = self._precision()  # [IoU thresholds, recalls, classes, sizes], -1 where there is no ground truth
        per_size = {f"AP_{size}": _mean(precision[..., i]) for i, size in enumerate(SIZES)}
        return {
            "AP": per_size.pop("AP_all"),
            "AP50": _mean(precision[0, ..., 0]),
            "AP75": _mean(precision[5, ..., 0]),
            **per_size,
            "per_class": {
                category.id: {
                    "name": category.name,
                    "AP": _mean(precision[:, :, k, 0]),
                    "AP50": _mean(precision[0, :, k, 0]),
                }
                for k, category in enumerate(things)
            },
        }

    def _precision(self) -> np.ndarray:
        classes, images = self.categories.things, sorted(self.images, key=str)  # independent of the order of `update`
        if not classes or not images:
            return np.full((10, 101, len(classes), len(SIZES)), -1.0)
        with contextlib.redirect_stdout(io.StringIO()):
            truth, found = ([self.images[image_id][side] for image_id in images] for side in (0, 1))
            evaluation = COCOeval(self._coco(truth), self._coco(found), "segm")
            evaluation.params.imgIds = list(range(len(images)))
            evaluation.params.catIds = list(range(len(classes)))
            evaluation.params.maxDets = [self.max_detections]
            evaluation.evaluate()
            evaluation.accumulate()
        return evaluation.eval["precision"][..., 0]

    def _coco(self, images: Sequence[Sequence[Mapping[str, Any]]]) -> COCO:
        """A data set in pycocotools' form: images and categories are numbered from 0, annotations from 1."""
        annotations = [
            dict(entry, image_id=index, category_id=self.categories.label_of[entry["category_id"]])
            for index, entries in enumerate(images)
            for entry in entries
        ]
        for number, annotation in enumerate(annotations, 1):
            annotation |= {"id": number, "area": float(rle_codec.area(annotation["segmentation"]))}
        coco: Any = COCO()
        coco.dataset = {
            "images": [{"id": index, "height": 0, "width": 0} for index in range(len(images))],  # the codes have sizes
            "categories": [{"id": label} for label in range(self.categories.num_things)],
            "annotations": annotations,
        }
        coco.createIndex()
        return coco


def _encode(mask: np.ndarray) -> dict[str, Any]:
    if mask.ndim != 2 or mask.dtype != bool:
        raise EvaluationError(f"a mask is {mask.dtype} of shape {mask.shape}: give bool of H x W")
    return dict(rle_codec.encode(np.asfortranarray(mask, dtype=np.uint8)))


def _mean(precision: np.ndarray) -> float:
    known = precision[precision > -1]
    return float(known.mean()) if known.size else float("nan")
