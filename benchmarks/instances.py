"""Which things are found, with IoU > 0.5: by size, by touching others or not, by number of things in the image.

For SPINet also what is wrong with the mask of each thing's best location, by size: see `mask_errors`.

python benchmarks/instances.py --weights runs/mine/model.safetensors --data ROOT --json FILE
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from tqdm.auto import tqdm

from spinet.data import open_dataset
from spinet.data.segments import decode_ids
from spinet.evaluation.components import components
from spinet.evaluation.oracle import MaskErrors, mask_errors
from spinet.evaluation.panoptic_quality import SIZES
from spinet.files import write_json
from spinet.inference.predict import postprocess, run_network
from spinet.model.spinet import SPINet
from spinet.weights import load_model


def traits(ids: np.ndarray, segment_id: int, things: set[int], area: int, count: int) -> list[str]:
    """The groups of a thing."""
    around = cv2.dilate((ids == segment_id).astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool)
    touches = bool((set(np.unique(ids[around]).tolist()) - {segment_id}) & things)
    size = next(
        name for limit, name in ((8, "< 8²"), (16, "8²-16²"), (32, "16²-32²"), (1e9, "≥ 32²")) if area < limit**2
    )
    crowd = next(name for limit, name in ((10, "< 10"), (30, "10-29"), (100, "30-99"), (1e9, "≥ 100")) if count < limit)
    return ["all", f"area {size} px", "touching" if touches else "apart", f"{crowd} things in the image"]


def found(ids: np.ndarray, prediction: np.ndarray, segment_id: int) -> bool:
    """Whether a predicted segment has IoU > 0.5; only the segment with the most pixels of the thing can."""
    mask = ids == segment_id
    values, counts = np.unique(prediction[mask], return_counts=True)
    best = values[counts.argmax()]
    inside = counts.max()
    return best != 0 and bool(inside / (mask.sum() + (prediction == best).sum() - inside) > 0.5)


def summed(errors: Sequence[MaskErrors], threshold: float) -> dict[str, float]:
    """Numbers of things, and areas in pixels, summed over the things."""
    return {
        "number": len(errors),
        "confident": sum(one.score >= threshold for one in errors),
        "overlapping": sum(one.iou() > 0.5 for one in errors),
        "overlapping_without_same_class": sum(one.iou(same_class=False) > 0.5 for one in errors),
        "overlapping_without_elsewhere": sum(one.iou(elsewhere=False) > 0.5 for one in errors),
        **{name: sum(getattr(one, name) for one in errors) for name in ("area", "missed", "same_class", "elsewhere")},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--split", default="val")
    parser.add_argument("--json", type=Path, help="also write the counts to this file")
    arguments = parser.parse_args()
    model, dataset = load_model(arguments.weights), open_dataset(arguments.data, arguments.split)
    things = {category.id for category in dataset.categories.things}
    dataset = dataset.with_categories(model.categories)
    tally: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0])
    errors: dict[str, list[MaskErrors]] = {str(low): [] for low in SIZES[:-1]}
    for index in tqdm(range(len(dataset)), unit="image"):
        raw, record = dataset.read(index), dataset.records[index]
        ids = decode_ids(raw.panoptic)
        output = run_network(model, raw.image)
        prediction = postprocess(model, output)
        parts, _ = components(prediction, model.categories, model.config.inference, model.space)
        objects = [s for s in record.segments_info if s["category_id"] in things and not s["iscrowd"]]
        object_ids = {s["id"] for s in objects}
        for segment in objects:
            hits = found(ids, prediction.ids, segment["id"]), found(ids, parts, segment["id"])
            for trait in traits(ids, segment["id"], object_ids, segment["area"], len(objects)):
                for column, value in enumerate((1, *hits)):
                    tally[trait][column] += int(value)
        if isinstance(model.network, SPINet):
            for one in mask_errors(model, output, dataset[index]):
                errors[str(max(low for low in SIZES[:-1] if one.area >= low**2))].append(one)
    names = ("number", "spinet", "components")
    masks = {size: summed(of_size, model.config.inference.threshold) for size, of_size in errors.items() if of_size}
    if arguments.json:
        counts = {trait: dict(zip(names, tally[trait], strict=True)) for trait in sorted(tally)}
        write_json(
            {"data": arguments.data.name, "split": arguments.split, "found": counts, "masks": masks}, arguments.json
        )
    print(f"{'things':28} {'number':>8} {'SPINet':>8} {'components':>11}   (found, percent)")
    for trait in sorted(tally):
        number, spinet, parts = tally[trait]
        print(f"{trait:28} {number:8} {100 * spinet / number:8.1f} {100 * parts / number:11.1f}")
    for size, of_size in masks.items():
        print(f"masks of things from {size} px: {', '.join(f'{name} {count}' for name, count in of_size.items())}")


if __name__ == "__main__":
    main()
