"""§5.1 Average precision of the instances on Cityscapes, computed by the official code (cityscapesscripts).

It differs from COCO's in three points. Predictions on things below 100 pixels, on groups and on void are ignored. The
precision-recall curve is integrated without interpolation. The number of instances is not limited.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
from cityscapesscripts.evaluation import evalInstanceLevelSemanticLabeling as official
from cityscapesscripts.helpers.labels import id2label, labels
from pycocotools import mask as rle_codec

from spinet.data.segments import Categories
from spinet.evaluation.overlaps import EvaluationError

SETTINGS: Any = copy.copy(official.args)
official.setInstanceLabels(SETTINGS)

THINGS = {label.id for label in labels if label.name in SETTINGS.instLabels}
"""Category ids of Cityscapes' things."""

VOID = [label.id for label in labels if label.ignoreInEval and label.id >= 0]
NO_DISTANCE = {"medDist": -1, "distConf": 0.0}  # the official code can also evaluate by distance from the camera


class CityscapesPrecision:
    """Collects things and predicted instances: the size, score and overlaps of each."""

    def __init__(self, categories: Categories) -> None:
        if {category.id for category in categories.things} != THINGS:
            raise EvaluationError(f"the things are not Cityscapes', whose category ids are {sorted(THINGS)}")
        self.categories = categories
        self.images: dict[int | str, dict[str, Any]] = {}

    def update(self, image_id: int | str, instance_ids: np.ndarray, instances: Sequence[Mapping[str, Any]]) -> None:
        """Adds one image.

        Args:
            image_id: its name.
            instance_ids: integer [H, W], as in `*_gtFine_instanceIds.png`: a category id, or for a single thing
                1000 × its category id + its number.
            instances: `category_id`, `score`, and `mask`, bool [H, W] or its run-length code by pycocotools.

        Raises:
            EvaluationError: the image was added before, a category is not a thing, a score is not finite, or a mask has
                another size than the image.
        """
        if image_id in self.images:
            raise EvaluationError(f"image {image_id!r} was added before: add each image once")
        areas = np.bincount(instance_ids.ravel())
        truth: dict[str, list[dict[str, Any]]] = {name: [] for name in SETTINGS.instLabels}
        found: dict[str, list[dict[str, Any]]] = {name: [] for name in SETTINGS.instLabels}
        for number in np.flatnonzero(areas).tolist():
            label = id2label.get(number if number < 1000 else number // 1000)
            if label is not None and label.name in truth:
                thing = {"instID": number, "pixelCount": int(areas[number]), **NO_DISTANCE}
                truth[label.name].append({**thing, "matchedPred": []})
        for instance in instances:
            name, score = self._name(instance["category_id"], image_id), float(instance["score"])
            if not np.isfinite(score):
                raise EvaluationError(f"image {image_id!r}: an instance has the score {score}: give a finite one")
            mask: Any = instance["mask"]
            mask = rle_codec.decode(cast(Any, mask)).astype(bool) if isinstance(mask, Mapping) else np.asarray(mask)
            if mask.shape != instance_ids.shape:
                raise EvaluationError(
                    f"image {image_id!r}: a mask has the size {mask.shape}, the image {instance_ids.shape}"
                )
            covered = np.bincount(instance_ids[mask], minlength=len(areas))
            if not covered.any():
                continue
            own = {"pixelCount": int(covered.sum()), "confidence": score}
            matched = []
            for thing in truth[name]:
                if intersection := int(covered[thing["instID"]]):
                    thing["matchedPred"].append({**own, "intersection": intersection})
                    matched.append({**thing, "intersection": intersection, "matchedPred": None})
            void = int(covered[[number for number in VOID if number < len(covered)]].sum())
            found[name].append({**own, "voidIntersection": void, "matchedGt": matched})
        self.images[image_id] = {"groundTruth": truth, "prediction": found}

    def merge(self, other: CityscapesPrecision) -> None:
        """Adds the images that another accumulator has seen (it can be pickled)."""
        if both := self.images.keys() & other.images.keys():
            raise EvaluationError(
                f"image {min(both, key=str)!r} is in both accumulators: give each image to one process"
            )
        self.images |= other.images

    def result(self) -> dict[str, Any]:
        """`AP` (mean over IoU 0.50:0.95) and `AP50`, in 0 … 1; `per_class`, by category id: `name`, `AP`, `AP50`.

        nan where there is no ground truth.
        """
        # independent of the order of `update`
        images = {image_id: self.images[image_id] for image_id in sorted(self.images, key=str)}
        precision = official.evaluateMatches(images, SETTINGS)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Mean of empty slice", category=RuntimeWarning)
            averages = official.computeAverages(precision, SETTINGS)
        classes = {category.id: averages["classes"][id2label[category.id].name] for category in self.categories.things}
        return {
            "AP": float(averages["allAp"]),
            "AP50": float(averages["allAp50%"]),
            "per_class": {
                category.id: {
                    "name": category.name,
                    "AP": float(classes[category.id]["ap"]),
                    "AP50": float(classes[category.id]["ap50%"]),
                }
                for category in self.categories.things
            },
        }

    def _name(self, category_id: int, image_id: int | str) -> str:
        if category_id not in THINGS:
            raise EvaluationError(f"image {image_id!r}: category_id {category_id!r} is not a thing")
        return id2label[category_id].name
