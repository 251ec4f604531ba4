"""§5.2 If masks of things overlap, the location belongs to the smaller thing."""

import json
import os
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from pycocotools import mask as codec

from spinet.data import DataError, open_dataset
from spinet.data.label_space import LabelSpace
from spinet.data.segments import encode_ids
from spinet.data.transforms import TrainTransform, collate
from spinet.data.whole_masks import WholeMask, smallest_things
from spinet.objective.targets import TargetBuilder

SIZE = HEIGHT, WIDTH = 32, 48
REAL = os.environ.get("SPINET_REALDATA")


def rectangle(top, left, height, width):
    mask = np.zeros(SIZE, bool)
    mask[top : top + height, left : left + width] = True
    return mask


def encoded(mask):
    return codec.encode(np.asfortranarray(mask, dtype=np.uint8))


@pytest.mark.parametrize("seed", range(20))
def test_each_pixel_shows_the_smallest_thing_there(seed):
    """Things of one or two categories on stuff, the largest painted last; one of them has no whole mask."""
    rng = np.random.default_rng(seed)
    while True:
        masks = [
            rectangle(*rng.integers(0, 16, 2), height, int(rng.integers(6, 30)))
            for height in rng.permutation(np.arange(4, 16))[:6]
        ]
        areas = [int(mask.sum()) for mask in masks]
        segment_map = np.full(SIZE, 1, np.int32)
        for number in np.argsort(areas):
            segment_map[masks[number]] = 2 + number
        visible = [segment_map == 2 + number for number in range(6)]
        if len(set(areas)) == 6 and min(part.sum() for part in visible) > 8:
            break
    categories = {2 + number: int(rng.integers(1, 3)) for number in range(6)}
    whole = [WholeMask(categories[2 + number], encoded(masks[number])) for number in rng.permutation(5)]
    seen = [*masks[:5], visible[5]]
    expected = segment_map.copy()
    for y, x in np.ndindex(SIZE):
        there = [number for number in range(6) if seen[number][y, x]]
        if there:
            expected[y, x] = 2 + min(there, key=lambda number: seen[number].sum())
    found = smallest_things(segment_map, categories, whole)
    assert np.array_equal(found, expected)
    assert not np.array_equal(found, segment_map)
    assert np.array_equal(smallest_things(segment_map, categories, []), segment_map)
    assert found.dtype == np.int32


BIG, SMALL, FAR = rectangle(4, 4, 20, 24), rectangle(10, 10, 8, 8), rectangle(2, 34, 6, 6)


@pytest.fixture
def coco(tmp_path: Path) -> Path:
    """A dog half hidden by a sheep, another dog, and ground; whole masks in all formats."""
    root = tmp_path / "coco"
    segment_map = np.full(SIZE, 9, np.int32)
    segment_map[SMALL], segment_map[FAR] = 5, 6
    segment_map[BIG & ~rectangle(10, 10, 4, 8)] = 4  # only the upper half of the dog is visible
    for folder in ("val", "annotations/panoptic_val"):
        (root / folder).mkdir(parents=True)
    cv2.imwrite(str(root / "val/1.png"), np.random.default_rng(0).integers(0, 256, (*SIZE, 3), np.uint8))
    cv2.imwrite(str(root / "annotations/panoptic_val/1.png"), encode_ids(segment_map)[..., ::-1])
    segments = [{"id": i, "category_id": c, "iscrowd": 0} for i, c in ((4, 20), (5, 18), (6, 18), (9, 90))]
    names = ((20, "sheep", 1), (18, "dog", 1), (90, "ground", 0))
    panoptic = {
        "images": [{"id": 1, "file_name": "1.png", "height": HEIGHT, "width": WIDTH}],
        "annotations": [{"image_id": 1, "file_name": "1.png", "segments_info": segments}],
        "categories": [{"id": i, "name": name, "isthing": isthing} for i, name, isthing in names],
    }
    (root / "annotations/panoptic_val.json").write_text(json.dumps(panoptic))
    far = encoded(FAR)
    runs = np.flatnonzero(np.diff(np.concatenate([[0], BIG.T.ravel().astype(int), [1 - BIG[-1, -1]]])))
    counts = np.diff([0, *runs, BIG.size]).tolist()
    masks = [
        (18, [[10, 10, 18, 10, 18, 18, 10, 18]]),
        (20, {"size": list(SIZE), "counts": counts}),
        (18, {"size": list(SIZE), "counts": far["counts"].decode()}),
    ]
    write_instances(root, [{"category_id": c, "segmentation": s, "iscrowd": 0} for c, s in masks])
    return root


def write_instances(root: Path, annotations: list[dict]) -> None:
    content = {"annotations": [{"image_id": 1, "id": n} | a for n, a in enumerate(annotations)]}
    (root / "annotations/instances_val.json").write_text(json.dumps(content))


def test_a_hidden_thing_has_the_locations_of_its_whole_mask(coco: Path):
    plain, whole = (open_dataset(coco, "val", whole_masks=wanted)[0] for wanted in (False, True))
    assert plain.smallest_map is None
    assert whole.smallest_map is not None
    assert torch.equal(plain.segment_map, whole.segment_map)
    assert np.array_equal(whole.smallest_map == 1, BIG & ~SMALL)
    assert np.array_equal(whole.smallest_map == 2, SMALL)
    assert np.array_equal(whole.smallest_map == 3, FAR)
    assert int((plain.segment_map == 2).sum()) == 32 < int((whole.smallest_map == 2).sum()) == 64

    builder = TargetBuilder(strides=[4], space=LabelSpace("all", 2, 1), divisor=4, samples_per_image=1000)
    batch = collate([whole], [0])
    assert batch.smallest_maps is not None
    arguments = batch.segment_maps, batch.labels, batch.crowd, batch.seeds
    targets, without = builder(*arguments, batch.smallest_maps), builder(*arguments)
    owner = torch.tensor([-2, 0, 1, 1, -2])[whole.smallest_map[2::4, 2::4].long()]
    assert torch.equal(targets.classes[0][0], owner)
    assert torch.equal(targets.images[0].masks, without.images[0].masks)  # the masks for the filters do not change
    assert torch.equal(targets.semantic, without.semantic)
    assert not torch.equal(targets.classes[0], without.classes[0])


def test_both_maps_go_through_the_transform(coco: Path):
    """The map of the smallest things is transformed like the map of a sample; segments may disappear."""
    dataset, fell_out = open_dataset(coco, "val", whole_masks=True), 0
    transform = TrainTransform(
        scale=(0.5, 2.0), scale_unit="factor", max_long_side=None, crop=(16, 16), flip=0.5, colour_jitter=0.0
    )
    for seed in range(40):
        raw = dataset.read(0)
        sample = transform(raw, torch.Generator().manual_seed(seed))
        assert sample.smallest_map is not None
        alone = dataset[0]
        alone.segment_map, alone.smallest_map = alone.smallest_map, None
        other = transform(alone, torch.Generator().manual_seed(seed))
        assert torch.equal(sample.image, other.image)
        labels, others = (torch.cat([torch.tensor([-1]), s.labels]) for s in (sample, other))
        same = labels[sample.smallest_map.long()] == others[other.segment_map.long()]
        assert same.all() or len(sample.labels) < len(other.labels)
        fell_out += len(sample.labels) < len(other.labels)
        assert int(sample.smallest_map.max()) <= len(sample.labels)
    assert fell_out < 20


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (None, r"instances_val\.json: No such file"),
        ([{"category_id": 18, "segmentation": {"size": [3, 3], "counts": [9]}}], r"image 1: a mask of size \[3, 3\]"),
        ([{"category_id": 18, "segmentation": [[0, 0, 1e9, 0, 5, 5]]}], "annotation 0"),
        ([{"category_id": 18, "segmentation": [[0, 0]]}], "annotation 0"),
        ([{"segmentation": [[0, 0, 5, 0, 5, 5]]}], "annotation 0"),
    ],
)
def test_files_that_hold_no_masks_are_named(coco: Path, change, message: str):
    if change is None:
        (coco / "annotations/instances_val.json").unlink()
    else:
        write_instances(coco, change)
    with pytest.raises(DataError, match=message):
        open_dataset(coco, "val", whole_masks=True)
    assert len(open_dataset(coco, "val")) == 1


@pytest.mark.skipif(not REAL, reason="SPINET_REALDATA names no folder of real data")
def test_real_coco_masks_find_their_segments(tmp_path: Path):
    """Whole masks are matched to their segments; equal masks change nothing until one is enlarged."""
    shutil.copytree(Path(REAL or "") / "coco_sample", root := tmp_path / "coco")
    file = root / "annotations/instances_val2017.json"
    shutil.copy(root / "annotations/panoptic_val2017_detection_format.json", file)
    plain, whole = (open_dataset(root, "val", whole_masks=wanted) for wanted in (False, True))
    for index in range(len(plain)):
        assert torch.equal(whole[index].smallest_map, plain[index].segment_map)
    content = json.loads(file.read_text())
    grown = next(a for a in content["annotations"] if a["category_id"] == 1 and not a["iscrowd"])
    mask = cv2.dilate(codec.decode(grown["segmentation"]), np.ones((9, 9), np.uint8))
    code = codec.encode(np.asfortranarray(mask))
    grown["segmentation"] = {"size": code["size"], "counts": code["counts"].decode()}
    file.write_text(json.dumps(content))
    whole = open_dataset(root, "val", whole_masks=True)
    changed = [whole[i].smallest_map != plain[i].segment_map for i in range(2)]
    assert sorted(bool(c.any()) for c in changed) == [False, True]
    assert 0 < max(int(c.sum()) for c in changed) <= int(mask.sum()) - grown["area"]
