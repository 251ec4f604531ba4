"""§5.1 Panoptic quality of predictions stored in the COCO panoptic format: a JSON file and a folder of PNG files."""

from __future__ import annotations

import re
import time
import warnings
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from spinet.data.names import Id, Names, matched_names, names_of
from spinet.data.readers import read_panoptic_png
from spinet.data.segments import Categories, Category, DataError, decode_ids
from spinet.evaluation.overlaps import EvaluationError
from spinet.evaluation.panoptic_quality import PanopticQuality
from spinet.files import is_intact, read_json

# PNG file and segments of an image, in the ground truth and in the prediction
Pair = tuple[Path, Sequence[Mapping[str, Any]], Path, Sequence[Mapping[str, Any]]]


def evaluate_files(
    gt_json: str | Path,
    pred_json: str | Path,
    *,
    gt_dir: str | Path | None = None,
    pred_dir: str | Path | None = None,
    workers: int = 1,
    progress: bool = False,
) -> dict[str, Any]:
    """`PanopticQuality.result` of stored predictions, with `images` (their number) and `seconds` (run time).

    By default each PNG folder lies next to its JSON file and has its name without the suffix. The categories are those
    of the ground truth. `workers` threads share the images; decoding, most of the work, runs in parallel.

    Raises `EvaluationError`, naming file, value and remedy, if anything is missing or inconsistent. Like the official
    code, it also raises if an image has no prediction: where nothing was found, write a PNG file of zeros and an empty
    `segments_info`. Like the official code, it ignores predictions of other images. `matched` pairs the images.
    """
    start = time.perf_counter()
    if workers < 1:
        raise EvaluationError(f"workers = {workers}: give at least 1")
    gt_json, pred_json = Path(gt_json), Path(pred_json)
    truth = _read_json(gt_json)
    categories = _categories(truth, gt_json)
    predicted = _read_json(pred_json)
    if not is_intact(predicted):
        message = f"{pred_json}: edited or damaged since it was written (its sha256 differs); evaluated anyway"
        warnings.warn(message, RuntimeWarning, stacklevel=2)
    gt = _annotations(truth, gt_json, _folder(gt_json, gt_dir))
    pred = _annotations(predicted, pred_json, _folder(pred_json, pred_dir))
    partner = matched(names_of(truth), names_of(predicted), pred_json)
    pairs = [(*gt[image_id], *pred[partner[image_id]]) for image_id in gt]
    for gt_png, _, pred_png, _ in pairs:
        for png in gt_png, pred_png:
            if not png.is_file():
                raise EvaluationError(f"{png}: no such file, but the JSON file lists it: write it, or name its folder")

    total = PanopticQuality(categories)
    with ThreadPoolExecutor(workers) as pool:
        parts = pool.map(lambda pair: _evaluate(categories, pair), pairs)
        for part in tqdm(parts, total=len(pairs), unit="image", disable=not progress):
            total.merge(part)  # in file order: the result is bit-identical for any number of workers
    return total.result() | {"images": len(pairs), "seconds": time.perf_counter() - start}


def matched(truth: Names, predicted: Names, where: Path) -> dict[Id, Id]:
    """The id of the prediction for each image id of the ground truth.

    Match by id if every image has a prediction with its id and a common file name. Otherwise match by file name, if
    every image has exactly one prediction with its name.

    Raises:
        EvaluationError: neither holds; the message says which image has no prediction, or which names contradict the
            ids. `where` is the file that the message names.
    """
    if all(image_id in predicted and set(truth[image_id]) & set(predicted[image_id]) for image_id in truth):
        return {image_id: image_id for image_id in truth}
    by_name = matched_names(truth, predicted)
    missing = [image_id for image_id in truth if image_id not in by_name]
    if not missing:
        return by_name
    absent = [image_id for image_id in truth if image_id not in predicted]
    if absent:
        first, kinds = absent[0], {type(image_id).__name__ for image_id in predicted}
        hint = "" if type(first).__name__ in kinds else f"; its ids are of type {', '.join(sorted(kinds))}"
        raise EvaluationError(
            f"{where}: no prediction for {len(absent)} of {len(truth)} images by id, for {len(missing)} by file_name, "
            f"the first is {first!r}{hint}: predict every image of the ground truth"
        )
    first, there, here = missing[0], _some(truth[missing[0]]), _some(predicted[missing[0]])
    raise EvaluationError(
        f"{where}: image {first!r} has the file_name {there} in the ground truth, {here} among the predictions: keep "
        "file names, as `spinet predict --like` does, or correct the ids"
    )


def read_ids(png: str | Path) -> np.ndarray:
    """Segment ids, int32 [H, W], of a panoptic PNG file.

    Raises `EvaluationError` unless it is an undamaged 8-bit RGB file.
    """
    try:
        return decode_ids(read_panoptic_png(Path(png)))
    except DataError as error:
        raise EvaluationError(str(error)) from None


def _evaluate(categories: Categories, pair: Pair) -> PanopticQuality:
    quality = PanopticQuality(categories)
    gt_png, gt_segments, pred_png, pred_segments = pair
    try:
        quality.update(read_ids(gt_png), gt_segments, read_ids(pred_png), pred_segments)
    except EvaluationError as error:
        raise EvaluationError(f"{pred_png} against {gt_png}: {error}") from None
    return quality


def _folder(json_file: Path, folder: str | Path | None) -> Path:
    folder = Path(folder) if folder is not None else json_file.with_suffix("")
    if not folder.is_dir():
        raise EvaluationError(
            f"{folder}: no such folder; it should hold the PNG files of {json_file}: name their folder by --gt-dir or "
            "--pred-dir"
        )
    return folder


def _read_json(path: Path) -> Mapping[str, Any]:
    content = read_json(path, error=EvaluationError)
    if not isinstance(content, dict) or not isinstance(content.get("annotations"), list):
        raise EvaluationError(f"{path}: no list `annotations`: give a JSON file in the COCO panoptic format")
    return content


def _categories(content: Mapping[str, Any], path: Path) -> Categories:
    entries = content.get("categories")
    if not isinstance(entries, list) or not entries:
        raise EvaluationError(f"{path}: no list `categories`: the ground truth must define them")
    for entry in entries:
        if not isinstance(entry, dict) or type(entry.get("id")) is not int or entry.get("isthing") not in (0, 1):
            raise EvaluationError(f"{path}: category {entry!r} needs an integer `id` and `isthing`, 0 or 1")
    if len({entry["id"] for entry in entries}) < len(entries):
        raise EvaluationError(f"{path}: two categories have the same id: give each its own")
    return Categories.of(
        [Category(entry["id"], str(entry.get("name", entry["id"])), bool(entry["isthing"])) for entry in entries]
    )


def _annotations(content: Mapping[str, Any], path: Path, folder: Path) -> dict[int | str, tuple[Path, list[Any]]]:
    """PNG file and segments of each image id."""
    found: dict[int | str, tuple[Path, list[Any]]] = {}
    for index, annotation in enumerate(content["annotations"]):
        where = f"{path}: annotation {index}"
        if not isinstance(annotation, dict):
            raise EvaluationError(f"{where}: {annotation!r} is not an object")
        image_id, name, segments = (annotation.get(key) for key in ("image_id", "file_name", "segments_info"))
        if type(image_id) is not int and not isinstance(image_id, str):
            raise EvaluationError(f"{where}: image_id {image_id!r} is neither an integer nor a string")
        if not isinstance(name, str) or _leaves(name):
            raise EvaluationError(f"{where}: file_name {name!r}: give the name of a PNG file inside {folder}")
        if not isinstance(segments, list) or not all(isinstance(segment, dict) for segment in segments):
            raise EvaluationError(f"{where}: segments_info is not a list of objects")
        if image_id in found:
            raise EvaluationError(f"{where}: image_id {image_id!r} occurs a second time: keep one annotation per image")
        found[image_id] = folder / name, segments
    return found


def _leaves(name: str) -> bool:
    """Whether a file name is invalid or leads out of its folder, on any operating system."""
    parts = re.split(r"[/\\]", name)
    return "" in parts or ".." in parts or "\0" in name or re.match(r"[A-Za-z]:", name) is not None


def _some(names: tuple[str, ...]) -> str:
    return repr(names[0]) if names else "of none"
