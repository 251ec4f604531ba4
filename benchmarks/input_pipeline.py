"""Images per second that one process reads, crops and colours at the size of Cityscapes, and the time of each step.

    python benchmarks/input_pipeline.py [--root FOLDER --split train] [--images 64]

Without a folder it generates images: smooth, with sensor noise, with file sizes like photographs.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from spinet.config import InputConfig
from spinet.data import PanopticDataset, RawSample, open_dataset
from spinet.data.readers import read_image, read_panoptic_png
from spinet.data.segments import encode_ids
from spinet.data.stream import TrainStream, stable_seed
from spinet.data.transforms import TrainTransform
from spinet.training.run import train_transform


def make_folder(root: Path, *, images: int, height: int = 1024, width: int = 2048, segments: int = 40) -> None:
    """Writes a COCO panoptic split "train" of images with noise and ellipses."""
    rng = np.random.default_rng(0)
    (root / "annotations/panoptic_train").mkdir(parents=True)
    (root / "train").mkdir()
    entries = []
    for number in range(images):
        smooth = cv2.resize(rng.uniform(0, 255, (16, 32, 3)).astype(np.float32), (width, height))
        noise = rng.normal(0, 1, (height, width, 1)) + rng.normal(0, 0.2, (height, width, 3))
        cv2.imwrite(str(root / f"train/{number}.png"), np.clip(smooth + noise, 0, 255).astype(np.uint8))

        ids = np.full((height, width), 7, np.int32)
        for segment in range(1, segments):
            centre = int(rng.integers(width)), int(rng.integers(height))
            axes = int(rng.integers(20, width // 8)), int(rng.integers(20, height // 8))
            cv2.ellipse(ids, centre, axes, int(rng.integers(180)), 0, 360, 26000 + segment, -1)
        cv2.imwrite(str(root / f"annotations/panoptic_train/{number}.png"), encode_ids(ids)[..., ::-1])
        present = np.unique(ids).tolist()
        entries.append([{"id": i, "category_id": 1 + (i > 7), "iscrowd": 0} for i in present])
    names = range(images)
    document = {
        "images": [{"id": n, "file_name": f"{n}.png", "height": height, "width": width} for n in names],
        "annotations": [{"image_id": n, "file_name": f"{n}.png", "segments_info": entries[n]} for n in names],
        "categories": [{"id": 1, "name": "ground", "isthing": 0}, {"id": 2, "name": "blob", "isthing": 1}],
    }
    (root / "annotations/panoptic_train.json").write_text(json.dumps(document))


def measure(dataset: PanopticDataset, transform: TrainTransform, images: int) -> None:
    """Prints the time of each step and the rate of the complete stream."""
    seconds: dict[str, float] = defaultdict(float)

    def timed(step: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **options: Any) -> Any:
            start = time.process_time()
            result = function(*args, **options)
            seconds[step] += time.process_time() - start
            return result

        return wrapped

    stream = TrainStream(dataset=dataset, transform=transform, seed=0)
    stream[0]
    start, clock = time.process_time(), time.perf_counter()
    for position in range(images):
        stream[position]
    seconds["whole stream"], wall = time.process_time() - start, time.perf_counter() - clock

    crop = RawSample.crop
    RawSample.crop = timed("look up the ids of the crop", crop)
    for position in range(images):
        record = dataset.records[position % len(dataset)]
        timed("decode the image", read_image)(record.image)
        timed("decode the segment ids", read_panoptic_png)(record.panoptic)
        raw = dataset.read(position % len(dataset))
        timed("crop, resize, flip, colour", transform)(raw, torch.Generator().manual_seed(stable_seed(position)))
    RawSample.crop = crop
    seconds["crop, resize, flip, colour"] -= seconds["look up the ids of the crop"]
    for step, spent in sorted(seconds.items(), key=lambda item: item[1]):
        print(f"{step:30s} {1000 * spent / images:6.1f} ms of one core")
    rate = f"{images / seconds['whole stream']:.1f} images/s of CPU time of one core"
    print(f"{rate}, {images / wall:.1f} of wall time (less if the core is shared)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=Path, help="your own data folder")
    parser.add_argument("--split", default="train")
    parser.add_argument("--images", type=int, default=64)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    transform = train_transform(InputConfig())
    with tempfile.TemporaryDirectory() as temporary:
        root = arguments.root or Path(temporary)
        if arguments.root is None:
            make_folder(root, images=8)
        dataset = open_dataset(root, arguments.split)
        sizes = [record.image.stat().st_size for record in dataset.records[: arguments.images]]
        print(f"{len(dataset)} images of {dataset.records[0].width} × {dataset.records[0].height} pixels, ", end="")
        print(f"{np.mean(sizes) / 1e6:.1f} MB each")
        measure(dataset, transform, arguments.images)


if __name__ == "__main__":
    main()
