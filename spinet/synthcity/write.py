"""Write SynthCity in Cityscapes' layout, with any number of workers; resumable."""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from spinet.data.prepare import prepare_cityscapes
from spinet.data.segments import DataError
from spinet.files import atomic_write, read_json
from spinet.synthcity.compose import SPLITS, compose
from spinet.synthcity.render import render

VERSION = 1  # of the images: raise it with every change of a pixel
MANIFEST = "synthcity.json"
CITY = "synthcity"
PER_SEQUENCE = 100


def render_scene(seed: int, index: int, size: tuple[int, int], split: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Renders scene `index` of a data set's split ("train" or "val", disjoint) as an image of `size` (height, width).

    Returns the image, uint8 [H, W, 3] RGB; label ids, uint8 [H, W]; and instance ids, uint16 [H, W]: labelId * 1000 + k
    for the k-th instance of a thing class, and the label id for stuff, void and crowds.
    Raises ValueError for another split or a size below 64 x 128.
    """
    if split not in SPLITS:
        raise ValueError(f"split must be one of {SPLITS}, not {split!r}")
    _check_size(size)
    return render(compose(seed, split, index), size)


def _check_size(size: tuple[int, int]) -> None:
    if size[0] < 64 or size[1] < 128:
        raise ValueError(f"the smallest size is 64 x 128 pixels (height x width), not {size[0]} x {size[1]}")


def _png(path: Path, image: np.ndarray) -> None:
    """Writes a PNG file atomically."""
    _, data = cv2.imencode(".png", image)  # OpenCV's default settings were the fastest in our measurements
    atomic_write(path, data.tobytes())


def write_scene(job: tuple[str, int], root: Path, size: tuple[int, int], seed: int) -> None:
    """Renders and writes the three files of one scene, unless they exist."""
    split, index = job
    stem = f"{CITY}_{index // PER_SEQUENCE:06d}_{index % PER_SEQUENCE:06d}"
    fine = root / "gtFine" / split / CITY
    image_path = root / "leftImg8bit" / split / CITY / f"{stem}_leftImg8bit.png"
    label_path, instance_path = fine / f"{stem}_gtFine_labelIds.png", fine / f"{stem}_gtFine_instanceIds.png"
    if image_path.exists() and label_path.exists() and instance_path.exists():
        return
    for folder in (fine, image_path.parent):
        folder.mkdir(parents=True, exist_ok=True)
    image, labels, instances = render_scene(seed, index, size, split)
    _png(label_path, labels)
    _png(instance_path, instances)
    _png(image_path, cv2.cvtColor(image, cv2.COLOR_RGB2BGR))


def _claim(root: Path, manifest: dict) -> None:
    """Makes `root` the folder of this data set; raises DataError if it has other contents."""
    path = root / MANIFEST
    if path.exists():
        found = read_json(path, error=DataError)
        if found != manifest:
            raise DataError(f"{root}: holds a SynthCity of {found}, not {manifest}; delete it or name another folder")
    elif root.exists() and any(root.iterdir()):
        raise DataError(f"{root}: neither empty nor a SynthCity; empty it or name another folder")
    root.mkdir(parents=True, exist_ok=True)
    atomic_write(path, (json.dumps(manifest, indent=2) + "\n").encode())


def _run(jobs: list[tuple[str, int]], write: partial[None], workers: int) -> Iterator[None]:
    if workers <= 1:
        yield from map(write, jobs)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=cv2.setNumThreads, initargs=(0,)) as pool:
        yield from pool.map(write, jobs, chunksize=8)


def generate(
    out: str | Path,
    *,
    num_train: int,
    num_val: int,
    size: tuple[int, int],
    seed: int = 0,
    workers: int = 1,
    progress: bool = True,
) -> None:
    """Writes a SynthCity in Cityscapes' layout to the folder `out`, panoptic PNG and JSON included.

    `size` is (height, width) in pixels. Repeat an interrupted call to complete it. The files do not depend on
    `workers`.

    Raises:
        DataError: `out` has other contents.
        ValueError: the size is below 64 x 128, or there is nothing to write.
    """
    _check_size(size)
    if num_train < 0 or num_val < 0 or num_train + num_val == 0:
        raise ValueError(
            f"num_train and num_val must be at least 0, and one of them above 0, not {num_train} and {num_val}"
        )
    root = Path(out)
    counts = {"train": num_train, "val": num_val}
    _claim(root, {"name": "SynthCity", "version": VERSION, "seed": seed, "size": list(size), **counts})
    jobs = [(split, index) for split in SPLITS for index in range(counts[split])]
    write = partial(write_scene, root=root, size=size, seed=seed)
    for _ in tqdm(_run(jobs, write, workers), total=len(jobs), desc="SynthCity", unit="scene", disable=not progress):
        pass
    prepare_cityscapes(root)
