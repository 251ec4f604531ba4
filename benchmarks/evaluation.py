"""§5.1 Compare the time of the panoptic quality of stored predictions with that of the official code.

    python benchmarks/evaluation.py [--images 8] [--repeats 3] [--workers 1]
    python benchmarks/evaluation.py --images 500 --repeats 1 --workers 2      (the size of Cityscapes val)

Both read the same PNG files, of 1024 x 2048 pixels with 40 segments, with the same number of workers: threads in our
code, processes in the official code, as in its own multi-core script. The fastest of interleaved repeats are compared,
after a check that both give the same numbers. The decoding of the PNG files is a lower bound for both.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from spinet.data.segments import encode_ids
from spinet.evaluation import evaluate_files, read_ids

DISTINCT = 8  # different maps; further images repeat them with other ids
SIZE, SEGMENTS, CLASSES = (1024, 2048), 40, 19  # as in Cityscapes: 19 classes, the last 8 are things


def blobs(rng: np.random.Generator, size: tuple[int, int] = SIZE, segments: int = SEGMENTS) -> np.ndarray:
    """Regions with wavy borders around random centres, uint8 [H, W], 0 … segments-1."""
    height, width = size
    low = height // 4, width // 4
    y, x = np.mgrid[: low[0], : low[1]].astype(np.float32)
    waves = [
        cv2.resize(rng.normal(0, 12, (low[0] // 16, low[1] // 16)), low[::-1], interpolation=cv2.INTER_CUBIC)
        for _ in "yx"
    ]
    centres = rng.uniform((0, 0), low, (segments, 2)).astype(np.float32)
    distances = [(y + waves[0] - cy) ** 2 + (x + waves[1] - cx) ** 2 for cy, cx in centres]
    return cv2.resize(np.argmin(distances, axis=0).astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST)


def perturbed(segment_map: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The same regions with borders moved by a few pixels, like a good prediction."""
    height, width = segment_map.shape
    flow = [
        cv2.resize(rng.normal(0, 12, (height // 32, width // 32)).astype(np.float32), (width, height)) for _ in "xy"
    ]
    y, x = np.mgrid[:height, :width].astype(np.float32)
    return cv2.remap(segment_map, x + flow[0], y + flow[1], cv2.INTER_NEAREST, borderMode=cv2.BORDER_REPLICATE)


def write(
    folder: Path, name: str, images: int, maps: list[np.ndarray], labels: np.ndarray, rng: np.random.Generator
) -> Path:
    """Writes a JSON file and PNG files that cycle through the maps; ids are random with 24 bits, segment 0 is void."""
    (folder / name).mkdir()
    annotations = []
    for image_id, segment_map in enumerate(islice(cycle(maps), images)):
        ids = np.concatenate([[0], rng.choice(2**24 - 1, SEGMENTS - 1, replace=False) + 1])
        cv2.imwrite(str(folder / name / f"{image_id}.png"), encode_ids(ids[segment_map])[..., ::-1])
        present = [k for k in np.unique(segment_map).tolist() if k]
        annotations.append(
            {
                "image_id": image_id,
                "file_name": f"{image_id}.png",
                "segments_info": [
                    {
                        "id": int(ids[k]),
                        "category_id": int(labels[k]),
                        "iscrowd": 0,
                        "area": int((segment_map == k).sum()),
                    }
                    for k in present
                ],
            }
        )
    categories = [{"id": label, "name": str(label), "isthing": int(label >= 11)} for label in range(CLASSES)]
    path = folder / f"{name}.json"
    path.write_text(json.dumps({"categories": categories, "annotations": annotations}))
    return path


def official(gt_json: Path, pred_json: Path, workers: int) -> tuple[float, Any]:
    """Seconds and averages of the official code with `workers` processes, including their start and the JSON files."""
    start = time.perf_counter()
    gt, pred = (json.loads(path.read_text()) for path in (gt_json, pred_json))
    categories = {category["id"]: category for category in gt["categories"]}
    pairs = list(zip(gt["annotations"], pred["annotations"], strict=True))
    count = partial(official_share, folders=(gt_json.with_suffix(""), pred_json.with_suffix("")), categories=categories)
    shares = [pairs[first::workers] for first in range(workers)]
    if workers == 1:
        stat = count(pairs)
    else:
        with ProcessPoolExecutor(workers) as pool:
            stat, *others = pool.map(count, shares)
        for other in others:
            stat += other
    averages = {
        name: stat.pq_average(categories, k)[0] for name, k in (("All", None), ("Things", True), ("Stuff", False))
    }
    return time.perf_counter() - start, averages


def official_share(pairs: list[Any], *, folders: tuple[Path, Path], categories: dict[int, Any]) -> Any:
    """The official statistics of some images, in this process."""
    from panopticapi.evaluation import pq_compute_single_core

    with contextlib.redirect_stdout(io.StringIO()):
        return pq_compute_single_core(0, pairs, *folders, categories)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("images", 8), ("repeats", 3), ("workers", 1), ("seed", 0)):
        parser.add_argument(f"--{name}", type=int, default=default)
    args = parser.parse_args()
    rng = np.random.default_rng(args.seed)

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        maps = [blobs(rng) for _ in range(min(args.images, DISTINCT))]
        labels = rng.integers(0, CLASSES, SEGMENTS)
        gt_json = write(folder, "gt", args.images, maps, labels, rng)
        pred_json = write(folder, "pred", args.images, [perturbed(one, rng) for one in maps], labels, rng)

        evaluate_files(gt_json, pred_json, workers=args.workers)  # warm-up: file cache and threads
        ours, theirs = [], []
        for _ in range(args.repeats):
            result = evaluate_files(gt_json, pred_json, workers=args.workers)
            ours.append(result["seconds"] / args.images)
            seconds, averages = official(gt_json, pred_json, args.workers)
            theirs.append(seconds / args.images)
        for name, average in averages.items():
            for key, value in average.items():
                assert abs(result[name][key] - value) < 1e-12, (name, key, result[name][key], value)
        pngs = [*gt_json.with_suffix("").iterdir(), *pred_json.with_suffix("").iterdir()]
        our_decoding = 2 * min(seconds_of(read_ids, png) for png in pngs)
        their_decoding = 2 * min(seconds_of(decode_as_officially, png) for png in pngs)

    a, b = min(ours), min(theirs)
    print(f"{args.images} images of {SIZE[0]} x {SIZE[1]}, {SEGMENTS} segments, NumPy {np.__version__}")
    print(f"PQ        {100 * result['All']['pq']:.3f} by both")
    print(f"ours      {a:.4f} s per image, {a * args.images:.1f} s in total, {args.workers} threads", end="")
    print(f"; decoding takes one thread {our_decoding:.4f} s per image")
    print(f"official  {b:.4f} s per image, {b * args.images:.1f} s in total, {args.workers} processes", end="")
    print(f"; decoding takes one process {their_decoding:.4f} s per image")
    print(f"ratio     {b / a:.1f}")


def seconds_of(function: Callable[[Path], Any], png: Path) -> float:
    start = time.perf_counter()
    function(png)
    return time.perf_counter() - start


def decode_as_officially(png: Path) -> np.ndarray:
    return np.array(Image.open(png), dtype=np.uint32)


if __name__ == "__main__":
    main()
