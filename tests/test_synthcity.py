"""SynthCity: the same bytes everywhere, all classes, and touching objects."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from cityscapesscripts.helpers.labels import id2label, labels

from spinet.data import open_dataset
from spinet.data.segments import DataError, decode_ids
from spinet.synthcity import EndlessCity, generate, render_scene
from spinet.synthcity.compose import compose
from spinet.synthcity.survey import Survey, touching_instances

SMALL = (64, 128)
HASH = "26d416c2b51fea404773986aeab02f04d47a2b9ddcbc7e2a7d1bfc1128d64bc0"  # a new one needs a new VERSION
EVALUATED = {label.id for label in labels if not label.ignoreInEval}


def _tree(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


@pytest.fixture(scope="module")
def city(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("city") / "one"
    generate(root, num_train=6, num_val=3, size=SMALL, seed=3, progress=False)
    return root


def test_pixels_of_a_seed_never_change():
    image, _, instances = render_scene(0, 0, (96, 192), "val")
    digest = hashlib.sha256(image.tobytes() + instances.astype("<u2").tobytes()).hexdigest()
    assert digest == HASH


def test_workers_and_resumption_change_no_byte(city: Path, tmp_path: Path):
    out = tmp_path / "two"
    generate(out, num_train=6, num_val=3, size=SMALL, seed=3, workers=2, progress=False)
    assert _tree(out) == _tree(city)
    lost = next((out / "leftImg8bit" / "train").rglob("*.png"))
    lost.unlink()
    generate(out, num_train=6, num_val=3, size=SMALL, seed=3, progress=False)
    assert _tree(out) == _tree(city)


def test_splits_seeds_and_indices_differ():
    images = [render_scene(*scene)[0] for scene in ((0, 0, SMALL, "train"), (0, 0, SMALL, "val"))]
    images += [render_scene(1, 0, SMALL, "train")[0], render_scene(0, 1, SMALL, "train")[0]]
    assert len({image.tobytes() for image in images}) == len(images)


def test_a_scene_does_not_depend_on_the_size():
    seen = [render_scene(0, 5, size, "train") for size in ((128, 256), (256, 512))]
    things = [(t.label, t.x, t.z, t.yaw) for t in compose(0, "train", 5).things]
    assert things == [(t.label, t.x, t.z, t.yaw) for t in compose(0, "train", 5).things]
    coarse, fine = seen[0][1], seen[1][1][1::2, 1::2]
    assert (coarse == fine).mean() > 0.93
    shrunk = cv2.resize(seen[1][0], (256, 128), interpolation=cv2.INTER_AREA).astype(int)
    assert np.abs(shrunk - seen[0][0]).mean() < 12


@pytest.mark.parametrize("size", [(64, 128), (100, 210), (150, 150), (200, 130)])
def test_any_size(size: tuple[int, int]):
    image, label_ids, instance_ids = render_scene(0, 2, size, "train")
    assert image.shape == (*size, 3)
    assert label_ids.shape == instance_ids.shape == size
    assert image.dtype == label_ids.dtype == np.uint8
    assert instance_ids.dtype == np.uint16


def test_wrong_arguments_are_named(tmp_path: Path):
    with pytest.raises(ValueError, match="64 x 128"):
        render_scene(0, 0, (32, 64), "train")
    with pytest.raises(ValueError, match="'test'"):
        render_scene(0, 0, SMALL, "test")
    with pytest.raises(ValueError, match="num_train"):
        generate(tmp_path / "none", num_train=0, num_val=0, size=SMALL)


def test_halving_the_canvas_is_integer_arithmetic():
    canvas = np.random.default_rng(0).integers(0, 256, (64, 96, 4), np.uint8)
    wide = canvas.astype(np.uint16)
    exact = (wide[::2, ::2] + wide[1::2, ::2] + wide[::2, 1::2] + wide[1::2, 1::2] + 2) >> 2
    np.testing.assert_array_equal(cv2.resize(canvas, (48, 32), interpolation=cv2.INTER_AREA), exact)


def test_touching_is_8_neighbourhood_within_a_class():
    ids = np.full((4, 6), 7, np.uint16)
    ids[0, 0], ids[1, 1] = 26000, 26001  # cars, corner to corner
    ids[3, 3], ids[3, 4] = 26002, 24000  # a car next to a person
    ids[0, 4], ids[0, 5] = 24001, 24  # a person next to a crowd
    assert touching_instances(ids) == {26000, 26001}


def test_scenes_hold_every_class_and_objects_that_touch():
    survey = Survey()
    for index in range(60):
        image, label_ids, instance_ids = render_scene(0, index, (256, 512), "train")
        assert image.std() > 12
        counted = instance_ids >= 1000
        np.testing.assert_array_equal(np.where(counted, instance_ids // 1000, instance_ids), label_ids)
        assert all(id2label[label].hasInstances for label in np.unique(label_ids[counted]).tolist())
        survey.add(label_ids, instance_ids)
    assert {label for label in EVALUATED if survey.presence[label] < 0.08 * survey.scenes} == set()
    assert survey.share_touching() >= 1 / 3
    assert 0.2 < survey.share_small() < 0.5
    assert 8 < survey.instances.total() / survey.scenes < 40
    assert survey.groups > 0
    void = sum(share for label, share in survey.coverage.items() if label not in EVALUATED)
    assert 0.005 < void / survey.scenes < 0.15


def test_official_script_reads_the_layout(city: Path):
    for split, count in (("train", 6), ("val", 3)):
        record = json.loads((city / "gtFine" / f"cityscapes_panoptic_{split}.json").read_text())
        assert len(record["images"]) == len(record["annotations"]) == count
        assert {category["id"] for category in record["categories"]} == EVALUATED
        for entry in record["annotations"]:
            folder = city / "gtFine" / f"cityscapes_panoptic_{split}"
            panoptic = decode_ids(cv2.imread(str(folder / entry["file_name"]))[..., ::-1])
            stem = f"{entry['image_id']}_gtFine_instanceIds.png"
            instance_ids = cv2.imread(str(city / "gtFine" / split / "synthcity" / stem), cv2.IMREAD_UNCHANGED)
            segments = {segment["id"]: segment for segment in entry["segments_info"]}
            assert set(np.unique(panoptic).tolist()) - {0} == set(segments)
            np.testing.assert_array_equal(panoptic[panoptic > 0], instance_ids[panoptic > 0])
            for value, segment in segments.items():
                thing = id2label[segment["category_id"]].hasInstances
                assert segment["iscrowd"] == (thing and value < 1000)


def test_data_set_opens(city: Path):
    assert len(open_dataset(city, "train")) == 6
    assert len(open_dataset(city, "val")) == 3


def test_a_folder_of_something_else_is_left_alone(city: Path, tmp_path: Path):
    with pytest.raises(DataError, match="another folder"):
        generate(city, num_train=6, num_val=3, size=SMALL, seed=4, progress=False)
    (tmp_path / "holiday.txt").write_text("sun")
    with pytest.raises(DataError, match=str(tmp_path)):
        generate(tmp_path, num_train=1, num_val=0, size=SMALL, progress=False)
    assert [p.name for p in tmp_path.iterdir()] == ["holiday.txt"]


def test_endless_scenes_begin_with_those_on_disk_and_go_on(city: Path):
    stored = open_dataset(city, "train")
    endless = EndlessCity(city, stored.categories)
    for index in range(6):
        ours, theirs = endless.read(index), stored.load(index)
        assert np.array_equal(ours.image, theirs.image)
        assert np.array_equal(ours.segment_map == 0, theirs.segment_map == 0)
        order = [int(theirs.segment_map[ours.segment_map == i + 1].unique()) - 1 for i in range(len(ours.labels))]
        assert sorted(order) == list(range(len(theirs.labels)))
        assert ours.labels.tolist() == theirs.labels[order].tolist()
        assert ours.crowd.tolist() == theirs.crowd[order].tolist()
    assert any(bool(sample.crowd.any()) for sample in map(endless.read, range(12)))
    assert not np.array_equal(endless.read(6).image, endless.read(7).image)
    assert len(endless) > 10**6


def test_endless_scenes_need_a_synthcity(tmp_path: Path, city: Path):
    with pytest.raises(DataError, match=r"synthcity.json: missing; input.endless needs a folder made by: spinet data"):
        EndlessCity(tmp_path, open_dataset(city, "val").categories)
