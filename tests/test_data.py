"""§5.1 Data folders: reading, errors, and the results of a check."""

import copy
import json
import os
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spinet.data import DataError, open_dataset
from spinet.data.prepare import check, prepare_cityscapes
from spinet.data.segments import decode_ids, encode_ids, look_up

HEIGHT, WIDTH = 24, 40
BIG = 2**24 - 1
AREA_OF_1 = 8 * WIDTH


def write_png(path: Path, picture: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), picture[..., ::-1] if picture.ndim == 3 else picture)


def coco_ids() -> np.ndarray:
    """Void above, then stuff 300, a thing of id 1, a crowd of the largest id."""
    ids = np.zeros((HEIGHT, WIDTH), np.int32)
    ids[4:10] = 300
    ids[10:18] = 1
    ids[18:, 10:] = BIG
    return ids


def coco_document(images: int) -> dict:
    segments = [
        {"id": 1, "category_id": 44, "iscrowd": 0, "area": AREA_OF_1},
        {"id": BIG, "category_id": 7, "iscrowd": 1, "area": 6 * 30, "bbox": [10, 18, 30, 6]},
        {"id": 300, "category_id": 90, "iscrowd": 0, "area": 6 * WIDTH},
    ]
    return {
        "images": [{"id": n, "file_name": f"{n}.jpg", "height": HEIGHT, "width": WIDTH} for n in range(images)],
        "annotations": [
            {"image_id": n, "file_name": f"{n}.png", "segments_info": copy.deepcopy(segments)} for n in range(images)
        ],
        "categories": [
            {"id": 90, "name": "ground", "isthing": 0, "color": [1, 2, 3]},
            {"id": 7, "name": "sheep", "isthing": 1},
            {"id": 44, "name": "dog", "isthing": 1},
        ],
    }


@pytest.fixture
def coco(tmp_path: Path) -> Path:
    root = tmp_path / "coco"
    picture = np.full((HEIGHT, WIDTH, 3), (200, 100, 50), np.uint8)
    for n in range(3):
        write_png(root / f"val2017/{n}.jpg", picture)
        write_png(root / f"annotations/panoptic_val2017/{n}.png", encode_ids(coco_ids()))
    (root / "annotations/panoptic_val2017.json").write_text(json.dumps(coco_document(3)))
    return root


def edit(root: Path, change) -> None:
    path = root / "annotations/panoptic_val2017.json"
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


@pytest.fixture
def cityscapes(tmp_path: Path) -> Path:
    """Two images: road, a car, a crowd of cars, and the ego vehicle's bonnet, which is not evaluated."""
    root = tmp_path / "cityscapes"
    instances = np.full((HEIGHT, WIDTH), 7, np.uint16)
    instances[5:9, 5:15] = 26_000
    instances[12:14] = 26
    instances[20:] = 1
    labels = np.where(instances < 1000, instances, instances // 1000).astype(np.uint8)
    for split, stem in (("train", "aachen_000000_000019"), ("val", "ulm_000001_000019")):
        city = stem.split("_")[0]
        write_png(root / f"leftImg8bit/{split}/{city}/{stem}_leftImg8bit.png", np.full((HEIGHT, WIDTH, 3), 9, np.uint8))
        write_png(root / f"gtFine/{split}/{city}/{stem}_gtFine_instanceIds.png", instances)
        write_png(root / f"gtFine/{split}/{city}/{stem}_gtFine_labelIds.png", labels)
    return root


# --- reading ------------------------------------------------------------------


def test_coco_sample(coco: Path):
    dataset = open_dataset(coco, "val")  # found as val2017
    assert [c.name for c in dataset.categories.all] == ["sheep", "dog", "ground"]
    assert dataset.categories.stuff[0].color == (1, 2, 3)
    sample = dataset.load(1)
    assert sample.image_id == 1
    assert sample.image.shape == (3, HEIGHT, WIDTH)
    assert (sample.image.float().mean((1, 2)) - torch.tensor([200.0, 100, 50])).abs().max() < 4  # JPEG
    expected = np.select([coco_ids() == 1, coco_ids() == BIG, coco_ids() == 300], [1, 2, 3])
    assert sample.segment_map.dtype == torch.int32
    assert np.array_equal(sample.segment_map.numpy(), expected)
    assert sample.labels.tolist() == [1, 0, 2]
    assert sample.crowd.tolist() == [False, True, False]
    assert sample.window.tolist() == [0, 0, WIDTH, HEIGHT]
    assert dataset.records[1].segments_info[0] == {"id": 1, "category_id": 44, "iscrowd": 0, "area": AREA_OF_1}
    assert dataset.index_of[2] == 2


def test_cityscapes_sample(cityscapes: Path, capsys: pytest.CaptureFixture[str]):
    made = prepare_cityscapes(cityscapes)
    assert capsys.readouterr() == ("", "")
    assert [(p.split, p.images, p.segments) for p in made] == [("train", 1, 3), ("val", 1, 3)]
    dataset = open_dataset(cityscapes, "val")
    assert dataset.categories.num_things == 8
    assert dataset.categories.num_stuff == 11
    sample = dataset.load(0)
    assert sample.image_id == "ulm_000001_000019"
    names = [dataset.categories.all[label].name for label in sample.labels.tolist()]
    shown = {
        (names[i], bool(sample.crowd[i])): int((sample.segment_map == i + 1).sum()) for i in range(len(sample.labels))
    }
    assert shown == {("road", False): 18 * WIDTH - 40, ("car", True): 2 * WIDTH, ("car", False): 40}
    assert int((sample.segment_map == 0).sum()) == 4 * WIDTH
    assert check(cityscapes).ok


def test_prepare_replaces_all_or_nothing(cityscapes: Path):
    prepare_cityscapes(cityscapes)
    before = sorted(path.relative_to(cityscapes) for path in cityscapes.rglob("*"))
    stale = cityscapes / "gtFine/cityscapes_panoptic_val/stale.png"
    stale.touch()
    prepare_cityscapes(cityscapes)
    assert sorted(path.relative_to(cityscapes) for path in cityscapes.rglob("*")) == before

    path = cityscapes / "gtFine/val/ulm/ulm_000001_000019_gtFine_instanceIds.png"
    sound = path.read_bytes()
    for broken in (b"", sound[:60]):
        path.write_bytes(broken)
        with pytest.raises(DataError, match="ulm_000001_000019_gtFine_instanceIds"):
            prepare_cityscapes(cityscapes)
    write_png(path, np.full((HEIGHT, WIDTH), 999, np.uint16))
    with pytest.raises(DataError, match="instance id 999"):
        prepare_cityscapes(cityscapes)
    assert len(open_dataset(cityscapes, "val")) == 1


def test_what_is_not_there_is_named(cityscapes: Path, coco: Path, tmp_path: Path):
    with pytest.raises(DataError, match=f"run: spinet data prepare cityscapes {cityscapes}"):
        open_dataset(cityscapes, "val")
    with pytest.raises(DataError, match=r"gtFine/ .* annotations/"):
        open_dataset(tmp_path, "val")
    with pytest.raises(DataError, match=r"no split 'train' .* val2017"):
        open_dataset(coco, "train")
    with pytest.raises(DataError, match="no gtFine"):
        prepare_cityscapes(coco)
    assert set(check(cityscapes).faults.kinds) == {"no panoptic files"}
    assert set(check(tmp_path).faults.kinds) == {"no data"}
    assert set(check(coco, splits=["test"]).faults.kinds) == {"no such split"}


COLOUR = np.full((HEIGHT, WIDTH, 3), (10, 20, 30), np.uint8)
PICTURES = {
    "grey": (np.full((HEIGHT, WIDTH), 77, np.uint8), (77, 77, 77)),
    "rgba": (np.dstack([COLOUR[..., ::-1], np.full((HEIGHT, WIDTH), 3, np.uint8)]), (10, 20, 30)),
    "16 bit": (np.full((HEIGHT, WIDTH), 77 * 257, np.uint16), (77, 77, 77)),
}


@pytest.mark.parametrize("kind", PICTURES)
def test_any_picture_becomes_rgb(coco: Path, kind: str):
    picture, colour = PICTURES[kind]
    (coco / "val2017/0.jpg").write_bytes(cv2.imencode(".png", picture)[1].tobytes())
    image = open_dataset(coco, "val").load(0).image
    assert image.dtype == torch.uint8
    assert torch.equal(image, torch.tensor(colour, dtype=torch.uint8)[:, None, None].expand(3, HEIGHT, WIDTH))


@given(st.lists(st.integers(1, BIG), min_size=1, max_size=30, unique=True), st.integers(0, 2**32 - 1))
def test_ids_survive_the_png(ids: list[int], seed: int):
    numbers = np.random.default_rng(seed).integers(0, len(ids) + 1, (9, 11))
    colours = encode_ids(np.array([0, *ids])[numbers])
    assert np.array_equal(look_up(decode_ids(colours), np.array(ids, np.int32), Path("x")), numbers)


@given(st.lists(st.integers(1, BIG), min_size=2, max_size=9, unique=True))
def test_an_unknown_id_is_refused(ids: list[int]):
    with pytest.raises(DataError, match=f"id {ids[-1]} "):
        look_up(np.array([ids], np.int32), np.array(ids[:-1], np.int32), Path("x"))
    largest = max(ids)
    for beyond in {largest + 1, largest + 2, min(2 * largest + 2, BIG)} - set(ids):  # nor an id outside the table
        with pytest.raises(DataError, match=f"id {beyond} "):
            look_up(np.array([[beyond]], np.int32), np.array(ids, np.int32), Path("x"))


# --- faults -------------------------------------------------------------------

IMAGE, PNG = "val2017/1.jpg", "annotations/panoptic_val2017/1.png"


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def other_size(path: Path) -> None:
    write_png(path, np.zeros((HEIGHT, WIDTH + 1, 3), np.uint8))


def unknown_id(path: Path) -> None:
    ids = coco_ids()
    ids[0, :3] = 12345
    write_png(path, encode_ids(ids))


FILE_FAULTS = [
    (IMAGE, Path.unlink, "image missing"),
    (IMAGE, truncate, "image broken"),
    (IMAGE, lambda path: path.write_bytes(b""), "image broken"),
    (IMAGE, lambda path: path.write_text("not a picture"), "image broken"),
    (IMAGE, other_size, "image of another size"),
    (PNG, Path.unlink, "panoptic PNG missing"),
    (PNG, truncate, "panoptic PNG broken"),
    (PNG, other_size, "panoptic PNG of another size"),
    (PNG, unknown_id, "segment not in the JSON file"),
]


@pytest.mark.parametrize(("name", "harm", "kind"), FILE_FAULTS)
def test_harmed_files(coco: Path, name: str, harm, kind: str):
    assert check(coco).ok
    harm(coco / name)
    report = check(coco)
    assert {k: tally.count for k, tally in report.faults.kinds.items()} == {kind: 1}
    assert name in report.faults.kinds[kind].examples[0]
    dataset = open_dataset(coco, "val")
    dataset.load(0)
    with pytest.raises(DataError, match=Path(name).name) as error:
        dataset.load(1)
    assert "\n" not in str(error.value)


def test_png_with_other_colours_is_found(coco: Path):
    write_png(coco / PNG, np.ones((HEIGHT, WIDTH), np.uint8))
    assert "panoptic PNG of another kind" in check(coco).faults.kinds


def segment(document: dict) -> dict:
    return document["annotations"][1]["segments_info"][0]


def put(*path, value):
    def change(document: dict) -> None:
        place = document
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = value

    change.__name__ = f"{'.'.join(map(str, path))}={str(value)[:20]}"
    return change


SEGMENT = ("annotations", 1, "segments_info", 0)
ENTRY_FAULTS = [
    (put(*SEGMENT, "category_id", value=5), "unknown category"),
    (put(*SEGMENT, "id", value=300), "duplicate segment id"),
    (put("images", 1, "id", value=2), "duplicate image id"),
    (put("images", 1, "file_name", value="2.jpg"), "duplicate image file name"),
    (put("annotations", 1, "file_name", value="2.png"), "duplicate panoptic file name"),
    (put("annotations", 1, "image_id", value=2), "duplicate annotation"),
    (put("annotations", 1, "image_id", value=9), "annotation without image"),
    (put("images", 1, "id", value=9), "image without annotation"),
    (put("categories", 1, "id", value=90), "duplicate category id"),
    (put("categories", 1, "name", value="ground"), "duplicate category name"),
    *(
        (put("images", 1, "file_name", value=name), "file name leaves the folder")
        for name in ("../1.jpg", "/etc/passwd", "a/../../b", "..\\1.jpg", "C:\\1.jpg", "1\0.jpg")
    ),
    (put("annotations", 1, "file_name", value="../1.png"), "file name leaves the folder"),
    *((put(*SEGMENT, "id", value=value), "malformed entry") for value in (0, -1, 2**24, 1.0, "1", True, None)),
    *((put("images", 1, "width", value=value), "malformed entry") for value in (0, 65536, 2.0**40, True, None)),
    *((put(*SEGMENT, "iscrowd", value=value), "malformed entry") for value in (2, "0")),
    *((put(*SEGMENT, "area", value=value), "malformed entry") for value in (-1, float("nan"), float("inf"), "7", True)),
    (put("images", 1, "id", value=True), "malformed entry"),
    (put("images", 1, "file_name", value="\ud800"), "malformed entry"),
    (put("categories", 1, "isthing", value="yes"), "malformed entry"),
    (put("categories", 0, "color", value=[1, 2]), "malformed entry"),
    (put("annotations", 1, value=[]), "malformed entry"),
    (put("annotations", 1, "segments_info", value={}), "malformed entry"),
]


@pytest.mark.parametrize(("change", "kind"), ENTRY_FAULTS, ids=lambda value: getattr(value, "__name__", None))
def test_faulty_entries(coco: Path, change, kind: str):
    edit(coco, change)
    report = check(coco)
    assert not report.ok
    assert report.faults.kinds[kind].count == 1
    with pytest.raises(DataError, match=r"panoptic_val2017\.json.*spinet data check") as error:
        open_dataset(coco, "val")
    assert "\n" not in str(error.value)


def test_pixels_that_contradict_the_entries(coco: Path):
    def change(document: dict) -> None:
        segment(document)["area"] = 17
        document["annotations"][2]["segments_info"].append({"id": 4, "category_id": 7, "iscrowd": 0, "area": 3})
        document["annotations"][0]["segments_info"][2]["iscrowd"] = 1  # on stuff: only a warning

    edit(coco, change)
    report = check(coco)
    assert report.faults.kinds["wrong area"].examples == [
        f"{PNG}: segment 1: 17 in the JSON file, {AREA_OF_1} in the PNG"
    ]
    assert report.faults.kinds["segment not in the PNG"].examples[0].endswith("2.png: segment id 4")
    assert report.faults.count == 2
    assert report.warnings.kinds["crowd flag on stuff"].count == 1
    assert report.segments == {"sheep": 4, "dog": 3, "ground": 3}
    assert report.images == {"val2017": 3}


def test_all_faults_at_once_by_any_number_of_processes(coco: Path):
    for name, harm in ((IMAGE, Path.unlink), ("val2017/0.jpg", Path.unlink), ("val2017/2.jpg", truncate)):
        harm(coco / name)
    unknown_id(coco / PNG)
    edit(coco, put(*SEGMENT, "category_id", value=5))
    report = check(coco, examples=1)
    counts = {kind: tally.count for kind, tally in report.faults.kinds.items()}
    assert counts == {
        "unknown category": 1,
        "image missing": 2,
        "image broken": 1,
        "segment not in the JSON file": 1,  # without the pixels of the entry whose category is invalid
    }
    assert [len(tally.examples) for tally in report.faults.kinds.values()] == [1, 1, 1, 1]
    assert "image missing: 2" in str(report)
    json.dumps(report.to_dict())
    assert check(coco, examples=1, workers=2) == report


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"images": [\n  {"id" 1}]}', "line 2, column 9"),
        ("[]", 'no list "images"'),
        ('{"images": [], "annotations": {}, "categories": []}', 'no list "annotations"'),
        ("[" * 100_000, "not JSON text"),
        ("", "line 1, column 1"),
    ],
)
def test_broken_json(coco: Path, text: str, message: str):
    (coco / "annotations/panoptic_val2017.json").write_text(text)
    with pytest.raises(DataError, match=message):
        open_dataset(coco, "val")
    assert message in check(coco).faults.kinds["unusable JSON file"].examples[0]


def test_cityscapes_ground_truth_files_are_checked(cityscapes: Path):
    prepare_cityscapes(cityscapes)
    folder = cityscapes / "gtFine/val/ulm"
    (folder / "ulm_000001_000019_gtFine_labelIds.png").unlink()
    other_size(folder / "ulm_000001_000019_gtFine_instanceIds.png")
    shutil.copy(
        cityscapes / "gtFine/train/aachen/aachen_000000_000019_gtFine_instanceIds.png",
        folder / "ulm_000002_000019_gtFine_instanceIds.png",
    )
    kinds = check(cityscapes).faults.kinds
    assert set(kinds) == {
        "ground truth PNG missing",
        "ground truth PNG of another size",
        "annotation not in the JSON file",
    }


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=4,
)


def places(value, path=()):
    """Paths to all nested values."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from places(inner, (*path, key))


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(list(places(coco_document(3)))[1:]), JSON)
def test_a_folder_that_passes_the_check_can_be_read(coco: Path, path: tuple, value):
    document = coco_document(3)
    put(*path, value=value)(document)
    (coco / "annotations/panoptic_val2017.json").write_text(json.dumps(document))
    if check(coco).ok:
        dataset = open_dataset(coco, "val")
        assert [dataset.load(i).labels.shape for i in range(len(dataset))]
        assert all(type(record["id"]) is int for entry in dataset.records for record in entry.segments_info)


# --- real data ----------------------------------------------------------------

REAL = os.environ.get("SPINET_REALDATA")
real = pytest.mark.skipif(not REAL, reason="SPINET_REALDATA names no folder of real data")


@real
@pytest.mark.parametrize(("name", "split"), [("coco_sample", "val"), ("camvid", "val")])
def test_real_coco_folders(name: str, split: str):
    root = Path(str(REAL)) / name
    dataset = open_dataset(root, split)
    report = check(root, splits=[dataset.split])
    assert report.ok, str(report)
    sample = dataset.load(0)
    areas = torch.bincount(sample.segment_map.flatten(), minlength=len(sample.labels) + 1)[1:].tolist()
    assert areas == dataset.records[0].segments.areas.tolist()


@real
def test_real_cityscapes_folder(tmp_path: Path):
    root = tmp_path / "kitti"
    shutil.copytree(Path(str(REAL)) / "kitti_cityscapes_format", root)
    assert prepare_cityscapes(root)[0].images == 5
    report = check(root)
    assert report.ok, str(report)
    assert sum(report.segments.values()) == 126
