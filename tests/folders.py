"""Small data folders in COCO panoptic layout, and a training of one second, for tests that damage them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from spinet.config import PRESETS, Config
from spinet.data.segments import encode_ids

SKY, BALL, FLOOR = (
    {"id": 7, "name": "sky", "isthing": 0, "color": [70, 130, 180]},
    {"id": 3, "name": "ball", "isthing": 1, "color": [220, 20, 60]},
    {"id": 900, "name": "floor", "isthing": 0, "color": [128, 64, 128]},
)
CLASSES = [SKY, BALL, FLOOR]

FLAGS = """--preset tiny --model.backbone resnet10t --model.norm group --model.no-pretrained --model.freeze-stages 0
--model.fpn-channels 16 --model.filter-channels 16 --model.feature-channels 16 --model.head-convs 1
--input.crop 64 96 --input.workers 0 --train.iterations 4 --train.checkpoint-every 2 --train.batch-size 2
--train.images-per-device 2 --train.warmup 0 --train.precision fp32""".split()


def micro(system: str = "spinet", **train: Any) -> Config:
    """`FLAGS` as Python values."""
    config = PRESETS["tiny"].with_system(system)
    sizes = {"fpn_channels": 16, "filter_channels": 16, "feature_channels": 16, "head_convs": 1}
    backbone = {"backbone": "resnet10t", "norm": "group", "pretrained": False, "freeze_stages": 0}
    schedule = {"iterations": 4, "checkpoint_every": 2, "batch_size": 2, "images_per_device": 2, "warmup": 0}
    return replace(
        config,
        model=replace(config.model, **sizes, **backbone),
        input=replace(config.input, crop=(64, 96), workers=0),
        train=replace(config.train, **schedule | {"precision": "fp32"} | train),
    )


def write_png(path: Path, picture: np.ndarray) -> None:
    """RGB, or one channel of any depth."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = cv2.imencode(".png", picture[..., ::-1] if picture.ndim == 3 else picture)[1]
    path.write_bytes(content.tobytes())


def draw(rng: np.random.Generator, size: tuple[int, int], balls: int = 2) -> tuple[np.ndarray, dict[int, int]]:
    """Segment ids, int32 [H, W], and the category of each: sky above, floor below, balls in front of them."""
    height, width = size
    ids = np.where(np.arange(height)[:, None] < height // 2, 300, 70_000) * np.ones((1, width), np.int32)
    segments = {300: 7, 70_000: 900}
    rows, columns = np.mgrid[:height, :width]
    for number in range(balls):
        y, x, radius = rng.integers(height), rng.integers(width), rng.integers(4, 9)
        ids[(rows - y) ** 2 + (columns - x) ** 2 < radius**2] = 10 + 1000 * number
        segments[10 + 1000 * number] = 3
    return ids.astype(np.int32), {id_: category for id_, category in segments.items() if (ids == id_).any()}


def build(
    root: Path,
    *,
    counts: Sequence[int] = (4, 2),
    classes: Sequence[dict[str, Any]] = CLASSES,
    size: tuple[int, int] = (64, 96),
) -> Path:
    """A folder with the splits train and val; segments of classes that are not given become void."""
    rng = np.random.default_rng(0)
    known = {entry["id"] for entry in classes}
    for split, count in zip(("train", "val"), counts, strict=True):
        images, annotations = [], []
        for number in range(count):
            ids, segments = draw(rng, size)
            kept = {id_: category for id_, category in segments.items() if category in known}
            ids[~np.isin(ids, list(kept))] = 0
            picture = (ids[..., None] * np.array([7, 11, 13]) % 200 + rng.integers(0, 50, (*size, 3))).astype(np.uint8)
            name = f"{split}{number:03d}.png"
            write_png(root / split / name, picture)
            write_png(root / f"annotations/panoptic_{split}" / name, encode_ids(ids))
            infos = [
                {"id": id_, "category_id": category, "iscrowd": 0, "area": int((ids == id_).sum())}
                for id_, category in kept.items()
            ]
            images.append({"id": number + 1, "file_name": name, "height": size[0], "width": size[1]})
            annotations.append({"image_id": number + 1, "file_name": name, "segments_info": infos})
        save(root, split, {"images": images, "annotations": annotations, "categories": list(classes)})
    return root


def json_file(root: Path, split: str = "val") -> Path:
    return root / f"annotations/panoptic_{split}.json"


def save(root: Path, split: str, content: dict[str, Any]) -> None:
    json_file(root, split).write_text(json.dumps(content))


def edit(root: Path, change: Callable[[dict[str, Any]], Any], *splits: str) -> None:
    for split in splits or ("train", "val"):
        content = json.loads(json_file(root, split).read_text())
        change(content)
        save(root, split, content)


def segments(content: dict[str, Any]) -> list[dict[str, Any]]:
    return [segment for annotation in content["annotations"] for segment in annotation["segments_info"]]
