"""Baseline for SPINet: its own semantic output, split into connected components."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

from spinet.config import InferenceConfig
from spinet.data.label_space import LabelSpace
from spinet.data.segments import Categories
from spinet.system import Panoptic


def components(
    prediction: Panoptic, categories: Categories, config: InferenceConfig, space: LabelSpace
) -> tuple[np.ndarray, list[dict[str, Any]]]:
    """Make each connected component (8 neighbours) of a thing class in the semantic output an instance.

    Components smaller than `min_component_area` pixels become void. Stuff is treated as in `merge`.
    """
    semantic = prediction.semantic
    first, stuff = space.first_stuff, space.num_stuff
    thing_label = np.where(semantic < first, semantic, -1)
    if prediction.class_map is not None:  # one output for all things: take the class from the class head
        thing_label = np.where(semantic == stuff, prediction.class_map, -1)
    ids = np.zeros(semantic.shape, dtype=np.int32)
    segments: list[dict[str, Any]] = []
    for label in np.unique(thing_label[thing_label >= 0]).tolist():
        count, parts, stats, _ = cv2.connectedComponentsWithStats(
            (thing_label == label).astype(np.uint8), connectivity=8, ltype=cv2.CV_32S
        )
        table = np.zeros(count, dtype=np.int32)
        for part in range(1, count):
            area = int(stats[part, cv2.CC_STAT_AREA])
            if area >= config.min_component_area:
                table[part] = len(segments) + 1
                segments.append({"id": len(segments) + 1, "category_id": categories.all[label].id, "area": area})
        ids += table[parts]
    for index in range(stuff):
        area_map = semantic == first + index
        area = int(area_map.sum())
        if area and area >= config.min_stuff_area * semantic.size:
            segments.append({"id": len(segments) + 1, "category_id": categories.stuff[index].id, "area": area})
            ids[area_map] = len(segments)
    return ids, segments
