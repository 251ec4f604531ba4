"""§5.1 The measures compared with the official code, on scenes with all special cases of its rules."""

import contextlib
import copy
import io
import json
import multiprocessing
import os
import pickle
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any
from unittest import mock

import cv2
import numpy as np
import pytest
from cityscapesscripts.helpers.labels import id2label
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as codec

from spinet.data import open_dataset
from spinet.data.cityscapes import instance_file
from spinet.data.prepare import prepare_cityscapes
from spinet.data.segments import Categories, Category, encode_ids
from spinet.data.stream import stable_seed
from spinet.evaluation import (
    AveragePrecision,
    CityscapesPrecision,
    EvaluationError,
    MeanIoU,
    PanopticQuality,
    evaluate_files,
    read_ids,
    summarize,
)
from spinet.evaluation.bootstrap import Bootstrap
from spinet.evaluation.validate import validate
from spinet.inference.predict import predict
from spinet.synthcity import generate
from spinet.weights import load_model

SIZE = (24, 32)
# stuff and things mixed, ids with gaps, and two classes without segments
CATEGORIES = Categories.of(
    [
        Category(7, "road", False),
        Category(3, "car", True),
        Category(30, "never a thing", True),
        Category(11, "sky", False),
        Category(24, "person", True),
        Category(90, "never stuff", False),
        Category(25, "rider", True),
    ]
)
SHOWN = [7, 3, 11, 24, 25]


def draw(rng, segment_map, count, first):
    """Paints rectangles of the values first … first+count-1."""
    for value in range(first, first + count):
        top, left = rng.integers(0, SIZE[0] - 4), rng.integers(0, SIZE[1] - 4)
        height, width = rng.integers(3, 14, 2)
        segment_map[top : top + height, left : left + width] = value


def described(rng, segment_map, category_of):
    """Random 24-bit ids for the values in a map (0 is void), and the segments."""
    values = [value for value in np.unique(segment_map).tolist() if value]
    ids = dict(zip(values, (rng.choice(2**24 - 1, len(values), replace=False) + 1).tolist(), strict=True))
    id_map = np.zeros(SIZE, dtype=np.int64)
    segments = []
    for value in rng.permutation(values).tolist():
        id_map[segment_map == value] = ids[value]
        area = int((segment_map == value).sum())
        segments.append({"id": ids[value], "category_id": category_of[value], "iscrowd": 0, "area": area})
    return id_map, segments


def scene(seed):
    """Ground truth and a prediction that is partly right: ids, segments, ids, segments."""
    rng = np.random.default_rng(seed)
    truth = np.zeros(SIZE, dtype=np.int64)
    truth[:, : rng.integers(0, SIZE[1])] = 1
    truth[rng.integers(8, SIZE[0]) :] = 2
    count = int(rng.integers(0, 9))
    draw(rng, truth, count, 3)
    truth[rng.random(SIZE) < rng.choice([0, 0.2])] = 0
    category_of = {value: int(rng.choice(SHOWN)) for value in range(20)}

    guess = truth.copy()
    shift = rng.integers(-2, 3, 2)
    guess = np.roll(guess, shift, (0, 1))
    draw(rng, guess, int(rng.integers(0, 4)), 14)
    if rng.random() < 0.5:
        draw(rng, guess, 1, 0)  # unpredicted
    guessed = {v: int(rng.choice(SHOWN)) if rng.random() < 0.25 else c for v, c in category_of.items()}

    gt_ids, gt_segments = described(rng, truth, category_of)
    for segment in gt_segments:
        segment["iscrowd"] = int(rng.random() < 0.35)
        if rng.random() < 0.1:  # the official code takes the area from the file
            segment["area"] += int(rng.integers(-2, 30))
            segment["area"] = max(segment["area"], 1)
    return gt_ids, gt_segments, *described(rng, guess, guessed)


def quality(scenes, categories=CATEGORIES):
    measure = PanopticQuality(categories)
    for images in scenes:
        measure.update(*images)
    return measure


def write_scenes(folder, scenes):
    """Writes the scenes as files; returns the two JSON files."""
    categories = [{"id": c.id, "name": c.name, "isthing": int(c.isthing), "color": [1, 2, 3]} for c in CATEGORIES.all]
    categories.sort(key=lambda category: category["id"])
    for side, name in enumerate(("gt", "pred")):
        (folder / name).mkdir(parents=True)
        annotations = []
        for place, images in enumerate(scenes):
            ids, segments = images[2 * side : 2 * side + 2]
            assert cv2.imwrite(str(folder / name / f"{place:03}.png"), encode_ids(ids)[..., ::-1])
            annotations.append({"image_id": place, "file_name": f"{place:03}.png", "segments_info": segments})
        content = {"annotations": annotations[:: -1 if side else 1]} | ({"categories": categories} if side == 0 else {})
        (folder / f"{name}.json").write_text(json.dumps(content))
    return folder / "gt.json", folder / "pred.json"


def official(code, gt_json, pred_json, monkeypatch):
    """Result of the official code, run in this process."""
    module: Any
    if code == "panopticapi":
        module = pytest.importorskip("panopticapi.evaluation")
    else:
        from cityscapesscripts.evaluation import evalPanopticSemanticLabeling as module
    monkeypatch.setattr(module, "pq_compute_multi_core", lambda *args: module.pq_compute_single_core(0, *args))
    with contextlib.redirect_stdout(io.StringIO()):
        if code == "panopticapi":
            return module.pq_compute(str(gt_json), str(pred_json))
        folders = [str(path.with_suffix("")) for path in (gt_json, pred_json)]
        results = gt_json.parent / "results.json"
        return module.evaluatePanoptic(str(gt_json), folders[0], str(pred_json), folders[1], str(results))


def assert_equal_results(ours, theirs):
    for group in ("All", "Things", "Stuff"):
        assert ours[group] == pytest.approx(theirs[group], rel=0, abs=1e-12)
    assert ours["per_class"].keys() == theirs["per_class"].keys()
    for category_id, values in theirs["per_class"].items():
        for key, value in values.items():
            assert ours["per_class"][category_id][key] == pytest.approx(value, rel=0, abs=1e-12), (category_id, key)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("code", ["panopticapi", "cityscapesscripts"])
def test_pq_equals_the_official_code(code, tmp_path, monkeypatch):
    scenes = [scene(seed) for seed in range(60)]
    scenes[0][1].append({"id": 5, "category_id": 3, "iscrowd": 0, "area": 9})  # ground truth without pixels
    gt_segments = scenes[1][1]
    gt_segments.pop()  # pixels without ground truth
    files = write_scenes(tmp_path, scenes)
    ours = evaluate_files(*files)
    theirs = official(code, *files, monkeypatch)
    assert_equal_results(ours, theirs)
    assert_equal_results(quality(scenes).result(), theirs)
    # the scenes are a meaningful comparison
    assert theirs["All"]["n"] == 5
    assert 0.1 < theirs["All"]["pq"] < 0.9
    assert all(min(ours["per_class"][c][key] for key in ("tp", "fp", "fn")) > 5 for c in SHOWN)
    assert any(sum(s["iscrowd"] and s["category_id"] == c for s in images[1]) > 1 for images in scenes for c in SHOWN)


@pytest.mark.parametrize("seed", range(6))
def test_pq_of_single_images_equals_the_official_code(seed, tmp_path, monkeypatch):
    """Each image separately, because errors could cancel in sums."""
    for place in range(8):
        files = write_scenes(tmp_path / str(place), [scene(1000 * seed + place)])
        ours = evaluate_files(*files)
        if ours["Things"]["n"] and ours["Stuff"]["n"]:
            assert_equal_results(ours, official("cityscapesscripts", *files, monkeypatch))


def strips(*parts):
    """A map of vertical strips, (id, width) each, one row high."""
    return np.concatenate([np.full((1, width), id_) for id_, width in parts], axis=1)


def test_pq_by_hand():
    gt = strips((1, 10), (2, 10), (0, 10))
    pred = strips((1, 8), (2, 12), (0, 4), (3, 6))
    gt_segments = [{"id": 1, "category_id": 3}, {"id": 2, "category_id": 7}]
    pred_segments = [{"id": 1, "category_id": 3}, {"id": 2, "category_id": 7}, {"id": 3, "category_id": 24}]
    result = quality([(gt, gt_segments, pred, pred_segments)]).result()
    assert result["per_class"][3]["iou"] == 8 / 10
    assert result["per_class"][7]["iou"] == 10 / 12
    assert result["per_class"][24]["fp"] == 0  # void is ignored
    assert result["All"] == pytest.approx({"pq": (0.8 + 10 / 12) / 2, "sq": (0.8 + 10 / 12) / 2, "rq": 1, "n": 2})
    assert summarize(result) == pytest.approx(
        {"PQ": 100 * (0.8 + 10 / 12) / 2, "PQ_th": 80, "PQ_st": 1000 / 12, "SQ": 100 * (0.8 + 10 / 12) / 2, "RQ": 100}
    )


def test_iou_of_exactly_one_half_is_no_match():
    result = quality(
        [(strips((1, 10)), [{"id": 1, "category_id": 3}], strips((0, 5), (1, 5)), [{"id": 1, "category_id": 3}])]
    )
    assert result.result()["per_class"][3] | {"name": ""} == {
        "name": "", "isthing": True, "pq": 0, "sq": 0, "rq": 0, "iou": 0, "tp": 0, "fp": 1, "fn": 1,
    }  # fmt: skip


@pytest.mark.parametrize(("covered", "false_positives"), [(1, 1), (2, 0)])
def test_of_several_crowds_of_a_class_the_last_in_the_list_is_forgiven(covered, false_positives):
    gt = strips((1, 10), (2, 10), (3, 10))
    crowds = [{"id": i, "category_id": 24, "iscrowd": 1} for i in (1, 2)]
    pred = np.where(gt == covered, 8, 0)
    result = quality([(gt, [*crowds, {"id": 3, "category_id": 7}], pred, [{"id": 8, "category_id": 24}])]).result()
    assert result["per_class"][24]["fp"] == false_positives
    assert result["per_class"][24]["fn"] == 0


def test_groups_without_a_class_are_nan():
    image = strips((1, 10)), [{"id": 1, "category_id": 3}]
    result = quality([(*image, *image)]).result()
    assert result["Things"] == {"pq": 1, "sq": 1, "rq": 1, "n": 1}
    assert result["Stuff"]["n"] == 0
    assert np.isnan([result["Stuff"][key] for key in ("pq", "sq", "rq")]).all()
    assert np.isnan(PanopticQuality(CATEGORIES).result()["All"]["pq"])
    assert PanopticQuality(Categories(things=(), stuff=())).result()["All"]["n"] == 0


def test_things_are_counted_by_size():
    gt, pred = strips((1, 400), (2, 50), (3, 49), (4, 1100)), strips((1, 400), (2, 99), (4, 1100))
    gt_segments = [{"id": id_, "category_id": category} for id_, category in ((1, 24), (2, 24), (3, 3), (4, 24))]
    pred_segments = [{"id": id_, "category_id": 24} for id_ in (1, 2, 4)]
    once = quality([(gt, gt_segments, pred, pred_segments)])
    assert once.result()["sizes"] == {
        "0": {"number": 2, "found": 1},
        "8": {"number": 0, "found": 0},
        "16": {"number": 1, "found": 1},
        "32": {"number": 1, "found": 1},
        "64": {"number": 0, "found": 0},
    }
    gt_segments[3] |= {"iscrowd": 1}
    pred_segments[0] |= {"category_id": 25}
    twice = quality([(gt, gt_segments, pred, pred_segments)])
    twice.merge(once)
    assert [twice.result()["sizes"][low] for low in ("16", "32")] == [
        {"number": 2, "found": 1},
        {"number": 1, "found": 1},
    ]


def test_resampled_sets_of_images():
    bootstrap, halves = Bootstrap(CATEGORIES), (Bootstrap(CATEGORIES), Bootstrap(CATEGORIES))
    scenes = [scene(seed) for seed in range(30)]
    for number, one in enumerate(scenes):
        counts = PanopticQuality(CATEGORIES).update(*one)
        bootstrap.update(number, counts)
        halves[number % 2].update(number, counts)
    halves[0].merge(halves[1])
    found = bootstrap.result()
    assert halves[0].result() == found
    times = [np.random.default_rng(stable_seed("bootstrap", number)).poisson(1, 200)[7] for number in range(30)]
    by_hand = summarize(quality([one for one, n in zip(scenes, times, strict=True) for _ in range(n)]).result())
    assert {name: values[7] for name, values in found.items()} == {n: round(by_hand[n], 2) for n in found}
    whole = summarize(quality(scenes).result())["PQ"]
    assert abs(np.mean(found["PQ"]) - whole) < np.std(found["PQ"])
    assert Bootstrap(CATEGORIES).result()["PQ"] == [None] * 200


def test_an_empty_prediction_misses_everything():
    gt_ids, gt_segments = strips((1, 10), (2, 10)), [{"id": 1, "category_id": 3}, {"id": 2, "category_id": 7}]
    result = quality([(gt_ids, gt_segments, np.zeros_like(gt_ids), [])]).result()
    assert result["All"] == {"pq": 0, "sq": 0, "rq": 0, "n": 2}
    assert [result["per_class"][c]["fn"] for c in (3, 7)] == [1, 1]
    unlabelled = quality([(np.zeros_like(gt_ids), [], gt_ids, gt_segments)])
    assert not unlabelled.state.any()


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_pq_does_not_depend_on_what_must_not_matter(seed):
    gt_ids, gt_segments, pred_ids, pred_segments = scene(seed)
    state = quality([(gt_ids, gt_segments, pred_ids, pred_segments)]).state
    rng = np.random.default_rng(seed)

    pixels = rng.permutation(gt_ids.size)  # positions of the pixels
    shuffled = [ids.ravel()[pixels].reshape(SIZE) for ids in (gt_ids, pred_ids)]
    assert quality([(shuffled[0], gt_segments, shuffled[1], pred_segments)]).state == pytest.approx(state, abs=1e-12)

    ids = sorted({0, *np.unique(pred_ids).tolist()})  # ids and order of the segments
    renamed = dict(zip(ids, [0, *(rng.permutation(len(ids) - 1) + 1).tolist()], strict=True))
    new_ids = np.vectorize(renamed.get)(pred_ids).astype(np.uint8)
    new_segments = [segment | {"id": renamed[segment["id"]]} for segment in pred_segments[::-1]]
    assert quality([(gt_ids, gt_segments, new_ids, new_segments)]).state == pytest.approx(state, abs=1e-12)

    segments = [{"id": segment["id"], "category_id": segment["category_id"]} for segment in gt_segments]
    perfect = quality([(gt_ids, segments, gt_ids, segments)]).state
    assert not perfect[:, 2:].any()
    assert (perfect[:, 0] == perfect[:, 1]).all()
    assert perfect[:, 1].sum() == len(segments)


def test_merging_and_threads_change_nothing(tmp_path):
    scenes = [scene(seed) for seed in range(20)]
    parts = [quality(scenes[i::3]) for i in range(3)]
    parts[0].merge(parts[1])
    parts[0].merge(pickle.loads(pickle.dumps(parts[2])))
    assert parts[0].state == pytest.approx(quality(scenes).state, rel=0, abs=1e-12)
    with pytest.raises(EvaluationError, match="different categories"):
        parts[0].merge(PanopticQuality(Categories.of([Category(1, "x", True)])))

    files = write_scenes(tmp_path, scenes)
    one, three = (evaluate_files(*files, workers=workers) for workers in (1, 3))
    assert one.pop("seconds") > 0
    assert three.pop("seconds") > 0
    assert one == three
    assert one["images"] == 20


def test_png_ids(tmp_path):
    ids = np.array([[0, 1, 255], [256, 65536, 2**24 - 1]])
    for name, extra in (("rgb", []), ("rgba", [np.full((2, 3), 7, np.uint8)])):
        cv2.imwrite(str(tmp_path / f"{name}.png"), np.dstack([encode_ids(ids)[..., ::-1], *extra]))
        assert (read_ids(tmp_path / f"{name}.png") == ids).all()
    whole = (tmp_path / "rgb.png").read_bytes()
    damaged = bytearray(whole)
    damaged[whole.index(b"IDAT") + 6] ^= 0x10
    grey = cv2.imencode(".png", np.zeros((4, 4), np.uint8))[1].tobytes()
    deep = cv2.imencode(".png", np.zeros((4, 4, 3), np.uint16))[1].tobytes()
    for content in (whole[:-20], bytes(damaged), b"", b"no PNG", grey, deep):
        (tmp_path / "bad.png").write_bytes(content)
        with pytest.raises(EvaluationError, match=r"bad\.png"):
            read_ids(tmp_path / "bad.png")
    with pytest.raises(EvaluationError, match=r"absent\.png"):
        read_ids(tmp_path / "absent.png")


def setting(side, place, key, value):
    """Changes a value in the first annotation, or in its first segment."""

    def change(gt, pred, folder):
        annotation = (gt, pred)[side]["annotations"][0]
        (annotation if place == "annotation" else annotation["segments_info"][0])[key] = value

    return change


def repeating(side, what):
    def change(gt, pred, folder):
        entries = (gt, pred)[side]["annotations"]
        entries = entries if what == "annotation" else entries[0]["segments_info"]
        entries.append(copy.deepcopy(entries[0]))

    return change


FAULTS = {
    "no prediction": (lambda gt, pred, folder: pred["annotations"].pop(), "no prediction for 1 of 3"),
    "no categories": (lambda gt, pred, folder: gt.pop("categories"), "gt.json: no list `categories`"),
    "no annotations": (lambda gt, pred, folder: pred.pop("annotations"), "pred.json: no list `annotations`"),
    "a category twice": (lambda gt, pred, folder: gt["categories"].append(gt["categories"][0]), "two categories"),
    "a category is broken": (lambda gt, pred, folder: gt["categories"][0].pop("isthing"), "isthing"),
    "an image twice": (repeating(1, "annotation"), "second time"),
    "an image of the truth twice": (repeating(0, "annotation"), "second time"),
    "a segment twice": (repeating(1, "segment"), "prediction: segment id .* twice"),
    "a segment of the truth twice": (repeating(0, "segment"), "ground truth: segment id .* twice"),
    "a leading path": (setting(1, "annotation", "file_name", "../gt/000.png"), "inside"),
    "a leading path on Windows": (setting(1, "annotation", "file_name", "..\\gt\\000.png"), "inside"),
    "an absolute path": (setting(1, "annotation", "file_name", "/etc/hostname"), "inside"),
    "a drive": (setting(0, "annotation", "file_name", "C:x.png"), "inside"),
    "no name": (setting(0, "annotation", "file_name", ""), "inside"),
    "names against ids": (setting(1, "annotation", "file_name", "999.png"), "image 0 has the file_name .000.*.999"),
    "an image id of a wrong type": (setting(1, "annotation", "image_id", 1.5), "image_id 1.5"),
    "segments of a wrong type": (setting(1, "annotation", "segments_info", {"id": 1}), "segments_info"),
    "an unknown category": (setting(1, "segment", "category_id", 1234), "unknown category_id 1234"),
    "an unknown category in truth": (setting(0, "segment", "category_id", 1234), "unknown category_id 1234"),
    "an id of a wrong type": (setting(1, "segment", "id", "17"), "integers `id`"),
    "an id that is a truth value": (setting(1, "segment", "id", True), "integers `id`"),
    "an id that is not whole": (setting(1, "segment", "id", 1.0), "integers `id`"),
    "an id that is void": (setting(1, "segment", "id", 0), "not positive"),
    "an area of a wrong type": (setting(0, "segment", "area", "large"), "area 'large'"),
    "a negative area": (setting(0, "segment", "area", -4), "area -4"),
    "a segment without pixels": (
        lambda gt, pred, folder: pred["annotations"][0]["segments_info"].append({"id": 77, "category_id": 3}),
        r"pred.000\.png .*segment id 77 is among the segments but not in the map",
    ),
    "pixels without a segment": (
        lambda gt, pred, folder: pred["annotations"][0]["segments_info"].pop(),
        r"pred.000\.png .*segment id \d+ is in the map but not among the segments",
    ),
    "another size": (
        lambda gt, pred, folder: cv2.imwrite(str(folder / "pred" / "000.png"), np.zeros((5, 6, 3), np.uint8)),
        r"\(24, 32\) and \(5, 6\)",
    ),
    "no folder": (lambda gt, pred, folder: (folder / "pred").rename(folder / "elsewhere"), "pred: no such folder"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_in_files_are_named(fault, tmp_path):
    scenes = [scene(seed) for seed in (3, 4, 5)]
    files = write_scenes(tmp_path, scenes)
    gt, pred = (json.loads(path.read_text()) for path in files)
    pred["annotations"].reverse()
    evaluate_files(*files)  # no error before the change
    change, message = FAULTS[fault]
    change(gt, pred, tmp_path)
    for path, content in zip(files, (gt, pred), strict=True):
        path.write_text(json.dumps(content))
    with pytest.raises(EvaluationError, match=message):
        evaluate_files(*files, workers=2)


def test_broken_json_is_located(tmp_path):
    gt_json, pred_json = write_scenes(tmp_path, [scene(1)])
    pred_json.write_text('{"annotations":\n [1, 2,, 3]}')
    with pytest.raises(EvaluationError, match=r"pred\.json: line 2, column 8"):
        evaluate_files(gt_json, pred_json)
    for content in (b"\xff\xfe\x00", b"", b"[" * 100_000, b"[]"):
        pred_json.write_bytes(content)
        with pytest.raises(EvaluationError, match=r"pred\.json"):
            evaluate_files(gt_json, pred_json)
    with pytest.raises(EvaluationError, match=r"absent\.json"):
        evaluate_files(gt_json, tmp_path / "absent.json")


def test_folders_can_be_named_and_other_predictions_are_ignored(tmp_path):
    gt_json, pred_json = write_scenes(tmp_path, [scene(seed) for seed in range(4)])
    expected = evaluate_files(gt_json, pred_json)
    (tmp_path / "pred").rename(tmp_path / "elsewhere")
    content = json.loads(pred_json.read_text())
    content["annotations"].append({"image_id": "other", "file_name": "x.png", "segments_info": []})
    pred_json.write_text(json.dumps(content))
    result = evaluate_files(gt_json, pred_json, pred_dir=tmp_path / "elsewhere")
    assert result | {"seconds": 0} == expected | {"seconds": 0}


def test_contradictions_in_ground_truth_are_warned_of():
    image = strips((1, 10), (2, 10)), [{"id": 1, "category_id": 3}]
    good = np.where(image[0] == 1, 1, 0), [{"id": 1, "category_id": 3}]
    with pytest.warns(RuntimeWarning, match="segment id 2 is in the map"):
        quality([(*image, *good)])
    with pytest.warns(RuntimeWarning, match="segment id 9 is among the segments"):
        quality([(good[0], [*good[1], {"id": 9, "category_id": 3}], *good)])


@pytest.mark.parametrize(
    "maps", [(np.zeros((2, 3)), np.zeros((2, 3), int)), (np.zeros((0, 3), int),) * 2, (np.zeros(3, int),) * 2]
)
def test_maps_of_a_wrong_form_are_refused(maps):
    with pytest.raises(EvaluationError, match="the maps have the"):
        PanopticQuality(CATEGORIES).update(maps[0], [], maps[1], [])


REAL = sorted(
    path
    for name in ("dsb2018", "camvid", "coco_sample")
    for path in Path(os.environ.get("SPINET_REALDATA", "absent"), name, "annotations").glob("panoptic_*.json")
    if path.with_suffix("").is_dir()
)


@pytest.mark.skipif(not os.environ.get("SPINET_REALDATA"), reason="SPINET_REALDATA is not set")
def test_real_ground_truth_against_itself_is_perfect():
    assert REAL
    for path in REAL:
        result = evaluate_files(path, path, workers=2)
        assert result["images"] > 0
        assert result["All"]["n"] > 0
        for group in ("All", "Things", "Stuff"):
            assert [result[group][key] for key in ("pq", "sq", "rq")] == [1, 1, 1], (path, group)


# ---------------------------------------------------------------------------------------------------- average precision


def instances(seed):
    """Instances with scores: most things of a scene, slightly moved, some with a wrong class, and false positives."""
    rng = np.random.default_rng(seed)
    gt_ids, gt_segments, pred_ids, pred_segments = scene(seed)
    things = [category.id for category in CATEGORIES.things]
    true = [(s["category_id"], np.roll(gt_ids == s["id"], rng.integers(0, 2, 2), (0, 1))) for s in gt_segments]
    false = [(s["category_id"], pred_ids == s["id"]) for s in pred_segments]
    drawn = [x for x in true if rng.random() < 0.8] + [x for x in false if rng.random() < 0.2]
    return [
        {
            "category_id": int(rng.choice(things)) if rng.random() < 0.1 else c,
            "score": float(rng.random()),
            "mask": mask,
        }
        for c, mask in drawn
        if c in things
    ]


def enlarged(ids):
    return np.kron(ids, np.ones((7, 7), dtype=ids.dtype))  # so that all three ranges of areas occur


def precision(seeds, **options):
    measure = AveragePrecision(CATEGORIES, **options)
    for seed in seeds:
        gt_ids, gt_segments, *_ = scene(seed)
        found = [instance | {"mask": enlarged(instance["mask"])} for instance in instances(seed)]
        measure.update(seed, enlarged(gt_ids), gt_segments, found)
    return measure


@pytest.mark.parametrize("max_detections", [100, 1])
def test_ap_equals_the_official_code(max_detections, capfd):
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    ours = precision(range(40), max_detections=max_detections).result()
    assert capfd.readouterr().out == ""

    things, annotations, results = {category.id for category in CATEGORIES.things}, [], []
    for image_id in range(40):
        gt_ids, gt_segments, *_ = scene(image_id)
        for segment in gt_segments:
            if segment["category_id"] in things:
                code = codec.encode(np.asfortranarray(enlarged(gt_ids == segment["id"]).astype(np.uint8)))
                annotations.append(
                    {
                        "id": len(annotations) + 1,
                        "image_id": image_id,
                        "category_id": segment["category_id"],
                        "iscrowd": segment["iscrowd"],
                        "segmentation": code,
                        "area": int(codec.area(code)),
                    }
                )
        for instance in instances(image_id):
            code = codec.encode(np.asfortranarray(enlarged(instance["mask"]).astype(np.uint8)))
            results.append(
                {key: instance[key] for key in ("category_id", "score")} | {"image_id": image_id, "segmentation": code}
            )
    with contextlib.redirect_stdout(io.StringIO()):
        truth: Any = COCO()
        height, width = 7 * SIZE[0], 7 * SIZE[1]
        truth.dataset = {
            "images": [{"id": i, "height": height, "width": width} for i in range(40)],
            "categories": [{"id": i} for i in sorted(things)],
            "annotations": annotations,
        }
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(results), "segm")
        evaluation.params.maxDets = [max_detections]
        evaluation.evaluate()
        evaluation.accumulate()

    def mean(*place):
        values = evaluation.eval["precision"][place]
        return values[values > -1].mean() if (values > -1).any() else np.nan

    every = slice(None)
    expected = {"AP": mean(every, every, every, 0), "AP50": mean(0, every, every, 0), "AP75": mean(5, every, every, 0)}
    expected |= {f"AP_{size}": mean(every, every, every, k) for k, size in enumerate(("small", "medium", "large"), 1)}
    expected = {name: pytest.approx(float(value), rel=0, abs=1e-12) for name, value in expected.items()}
    per_class = ours.pop("per_class")
    assert ours == expected
    assert 0.02 < ours["AP"] < ours["AP50"] < 0.9
    for place, category_id in enumerate(sorted(things)):
        values = [per_class[category_id][name] for name in ("AP", "AP50")]
        assert values == pytest.approx([mean(every, every, place, 0), mean(0, every, place, 0)], nan_ok=True)


def test_ap_of_the_ground_truth_is_one():
    measure = AveragePrecision(CATEGORIES)
    for seed in range(10):
        gt_ids, gt_segments, *_ = scene(seed)
        segments = [segment for segment in gt_segments if segment["category_id"] in (3, 24, 25)]
        found = [{"category_id": s["category_id"], "score": 0.5, "mask": gt_ids == s["id"]} for s in segments]
        measure.update(seed, gt_ids, gt_segments, found)
    result = measure.result()
    assert result["AP"] == result["AP50"] == result["per_class"][3]["AP"] == 1
    assert np.isnan(result["per_class"][30]["AP"])


def test_ap_of_nothing_is_nan_and_of_no_instance_zero():
    measure = AveragePrecision(CATEGORIES)
    assert np.isnan(measure.result()["AP"])
    measure.update(0, strips((1, 10)), [{"id": 1, "category_id": 7}], [])
    assert np.isnan(measure.result()["AP"])
    mask = strips((1, 10)) == 1
    measure.update(1, strips((1, 10)), [], [{"category_id": 3, "score": 1, "mask": mask}])
    assert np.isnan(measure.result()["AP"])
    measure.update(2, strips((1, 10)), [{"id": 1, "category_id": 3}], [])
    assert measure.result()["AP"] == 0
    assert np.isnan(AveragePrecision(Categories(things=(), stuff=CATEGORIES.stuff)).result()["AP"])


def test_ap_takes_codes_and_more_than_a_hundred_instances():
    ids = np.arange(1, 121).reshape(12, 10).repeat(3, 0).repeat(3, 1)
    segments = [{"id": i, "category_id": 3} for i in range(1, 121)]
    found = [{"category_id": 3, "score": 1 - i / 1000, "mask": ids == i} for i in range(1, 121)]
    values = {}
    for limit in (100, 120):
        measure = AveragePrecision(CATEGORIES, max_detections=limit)
        measure.update("a", ids, segments, found)
        codes = [instance["segmentation"] for instance in measure.images["a"][1]]
        measure.update("b", ids, segments, [x | {"mask": code} for x, code in zip(found, codes, strict=True)])
        values[limit] = measure.result()["AP"]
    assert values[120] == 1
    assert values[100] == pytest.approx(84 / 101)  # recall 0.833: 84 of the 101 recalls from 0 to 1


def test_ap_refuses_what_it_cannot_count():
    measure = AveragePrecision(CATEGORIES)
    ids = strips((1, 10))
    good = {"category_id": 3, "score": 0.5, "mask": ids == 1}
    faults = {
        "not a thing": {"category_id": 7},
        "the score nan": {"score": float("nan")},
        r"size \(1, 9\)": {"mask": ids[:, 1:] == 1},
        "give bool": {"mask": ids},
        r"size \(1000000, 1000000\)": {"mask": {"size": [10**6, 10**6], "counts": b"x"}},
    }
    for message, fault in faults.items():
        with pytest.raises(EvaluationError, match=message):
            measure.update(0, ids, [], [good | fault])
    measure.update(0, ids, [], [good])
    with pytest.raises(EvaluationError, match="added before"):
        measure.update(0, ids, [], [good])
    with pytest.raises(EvaluationError, match="in both"):
        measure.merge(measure)


# ------------------------------------------------------------------------------------------------------------- mean IoU


def semantic(seed, classes=6):
    rng = np.random.default_rng(seed)
    gt, pred = (rng.integers(0, classes - 1, (9, 13)) for _ in "gp")  # the last class never occurs
    pred = np.where(rng.random(gt.shape) < 0.6, gt, pred)
    gt[rng.random(gt.shape) < 0.1] = 255
    gt[rng.random(gt.shape) < 0.1] = -1
    pred[rng.random(gt.shape) < 0.1] = 255
    return gt, pred


def mean_iou(seeds, classes=6):
    measure = MeanIoU(classes)
    for seed in seeds:
        measure.update(*semantic(seed, classes))
    return measure


def test_mean_iou_equals_a_loop():
    hits, unions = np.zeros(6), np.zeros(6)
    for seed in range(5):
        for true, guess in zip(*(labels.ravel().tolist() for labels in semantic(seed)), strict=True):
            if true in (255, -1):
                continue
            hits[true] += true == guess
            unions[true] += 1
            if guess not in (true, 255):
                unions[guess] += 1
    result = mean_iou(range(5)).result()
    assert result["per_class"][:5] == pytest.approx((hits / np.maximum(unions, 1))[:5].tolist(), abs=1e-12)
    assert np.isnan(result["per_class"][5])
    assert result["mIoU"] == pytest.approx(np.mean(hits[:5] / unions[:5]), abs=1e-12)
    assert 0.2 < result["mIoU"] < 0.8


def test_mean_iou_equals_cityscapesscripts():
    from cityscapesscripts.evaluation import evalPixelLevelSemanticLabeling as official_code
    from cityscapesscripts.helpers.labels import labels

    ids = [label.id for label in labels if not label.ignoreInEval]
    maps = [semantic(seed, len(ids)) for seed in range(5)]
    arguments: Any = official_code.args
    arguments.evalLabels = [label.id for label in labels if label.id >= 0]
    confusion = official_code.generateMatrix(arguments)
    for gt, pred in maps:
        as_ids = [np.array([*ids, 0])[np.where((m == 255) | (m == -1), len(ids), m)] for m in (gt, pred)]
        np.add.at(confusion, tuple(as_ids), 1)
    expected = [official_code.getIouScoreForLabel(i, confusion, arguments) for i in ids]
    result = mean_iou(range(5), len(ids)).result()
    assert result["per_class"] == pytest.approx(expected, rel=0, abs=1e-12, nan_ok=True)
    assert result["mIoU"] == pytest.approx(np.nanmean(expected), rel=0, abs=1e-12)


def test_mean_iou_of_nothing_and_of_wrong_labels():
    measure = MeanIoU(3)
    measure.update(np.full((2, 2), 255, np.uint8), np.zeros((2, 2), np.uint8))
    assert np.isnan(measure.result()["mIoU"])
    for gt, pred in ((3, 0), (-2, 0), (0, 3), (0, -7)):
        with pytest.raises(EvaluationError, match=r"label -?\d+: give 0 … 2"):
            measure.update(np.full((2, 2), gt), np.full((2, 2), pred))
    with pytest.raises(EvaluationError, match="choose others"):
        MeanIoU(300)
    with pytest.raises(EvaluationError, match="cannot merge"):
        measure.merge(MeanIoU(4))


# ----------------------------------------------------------------------------------------------------------- Cityscapes

STREET = Categories.of([Category(i, id2label[i].name, i >= 24) for i in (7, 8, 21, 24, 25, 26, 27, 28, 31, 32, 33)])


def official_precision(folder, truth, found):
    """Result of evalInstanceLevelSemanticLabeling on files: paths of instance ids, and instances of each image."""
    from cityscapesscripts.evaluation import evalInstanceLevelSemanticLabeling as official

    arguments: Any = copy.copy(official.args)
    arguments.quiet, arguments.JSONOutput = True, False
    arguments.gtInstancesFile = str(folder / "gtInstances.json")
    arguments.predictionPath = str(folder)
    lists = []
    for number, instances in enumerate(found):
        lines = []
        for place, instance in enumerate(instances):
            name = f"{number}_{place}.png"
            cv2.imwrite(str(folder / name), 255 * instance["mask"].astype(np.uint8))
            lines.append(f"{name} {instance['category_id']} {instance['score']!r}")
        lists.append(folder / f"{number}.txt")
        lists[-1].write_text("".join(f"{line}\n" for line in lines))
    # its output files are not needed, and with a recent NumPy it cannot write them
    unwritten = mock.patch.object(official, "writeDict2JSON")
    with unwritten, mock.patch("numpy.in1d", np.isin, create=True):
        return official.evaluateImgLists(list(map(str, lists)), list(map(str, truth)), arguments)["averages"]


def street(seed):
    """Instance ids with things of all sizes, groups, void, and a caravan (void, but not in the official code).

    Predictions: one shifted instance for most things, two for some; wrong classes; on groups, on void and on nothing.
    """
    rng = np.random.default_rng(seed)
    ids = np.full((80, 120), 7, np.uint16)
    values = [26001, 26002, 26003, 24001, 24002, 24003, 33001, 26, 24, 3, 29001, 26004]
    for value in values:
        height, width = rng.integers(5, 32, 2)
        top, left = rng.integers(0, 80 - height), rng.integers(0, 120 - width)
        ids[top : top + height, left : left + width] = value
    found = []
    for value in (*values, *values):
        label = int(rng.choice([24, 26, 33])) if value in (3, 29001) or rng.random() < 0.1 else value % 1000
        if value >= 1000 and value != 29001:
            label = value // 1000 if rng.random() < 0.9 else 25
        mask = np.roll(ids == value, rng.integers(-2, 3, 2), (0, 1)) & (rng.random(ids.shape) < 0.95)
        if rng.random() < 0.7:
            found.append({"category_id": label, "score": round(float(rng.random()), 2), "mask": mask})
    return ids, found


def test_ap_equals_cityscapesscripts(tmp_path):
    measure, files, found = CityscapesPrecision(STREET), [], []
    for seed in range(25):
        ids, instances = street(seed)
        measure.update(seed, ids, instances)
        files.append(tmp_path / f"{seed}_gtFine_instanceIds.png")
        found.append(instances)
        assert cv2.imwrite(str(files[-1]), ids)
    expected = official_precision(tmp_path, files, found)
    ours = measure.result()
    assert ours["AP"] == pytest.approx(expected["allAp"], rel=0, abs=1e-12)
    assert ours["AP50"] == pytest.approx(expected["allAp50%"], rel=0, abs=1e-12)
    assert 0.1 < ours["AP"] < ours["AP50"] < 0.9
    for category in STREET.things:
        own, theirs = ours["per_class"][category.id], expected["classes"][category.name]
        assert [own["AP"], own["AP50"]] == pytest.approx([theirs["ap"], theirs["ap50%"]], nan_ok=True, abs=1e-12)
    assert np.isnan(ours["per_class"][28]["AP"])
    halves = CityscapesPrecision(STREET), CityscapesPrecision(STREET)
    for seed in reversed(range(25)):
        ids, instances = street(seed)
        coded = [dict(i, mask=codec.encode(np.asfortranarray(i["mask"], dtype=np.uint8))) for i in instances]
        halves[seed % 2].update(seed, ids, coded)
    halves[0].merge(pickle.loads(pickle.dumps(halves[1])))
    assert str(halves[0].result()) == str(ours)  # nan != nan


def test_cityscapes_ap_refuses_what_it_cannot_count():
    with pytest.raises(EvaluationError, match="not Cityscapes'"):
        CityscapesPrecision(CATEGORIES)
    measure, (ids, instances) = CityscapesPrecision(STREET), street(0)
    assert np.isnan(measure.result()["AP"])
    faults = {"is not a thing": {"category_id": 7}, "finite": {"score": np.nan}, "size": {"mask": ids[1:] > 0}}
    for message, wrong in faults.items():
        with pytest.raises(EvaluationError, match=message):
            measure.update("a", ids, [instances[0] | wrong])
    measure.update("a", ids, instances)
    with pytest.raises(EvaluationError, match="added before"):
        measure.update("a", ids, instances)
    with pytest.raises(EvaluationError, match="both accumulators"):
        measure.merge(measure)


def test_validation_on_cityscapes_equals_its_own_scripts(tmp_path, monkeypatch):
    """AP and mIoU of predictions on whole images, also with groups, compared with the scripts that read files."""
    from cityscapesscripts.evaluation import evalPixelLevelSemanticLabeling as official

    generate(tmp_path / "city", num_train=1, num_val=2, size=(256, 512), progress=False)
    for path in sorted((tmp_path / "city" / "gtFine" / "val").rglob("*_instanceIds.png")):
        ids = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        assert cv2.imwrite(str(path), np.where(ids == ids[ids >= 1000].max(), ids // 1000, ids))  # a group
    prepare_cityscapes(tmp_path / "city")
    dataset = open_dataset(tmp_path / "city", "val")
    assert any(record.segments.crowd.any() for record in dataset.records)
    model = load_model()
    predicted = []

    def noted(*arguments, **options):
        predicted.append(predict(*arguments, **options))
        return predicted[-1]

    monkeypatch.setattr("spinet.evaluation.validate.predict", noted)
    result = validate(model, dataset)
    instance_ids = [str(instance_file(dataset.root, "val", record.image_id)) for record in dataset.records]
    (tmp_path / "found").mkdir()
    expected = official_precision(tmp_path / "found", instance_ids, [p.instances for p in predicted])
    assert result["AP"] == pytest.approx(expected["allAp"], rel=0, abs=1e-12)
    assert 0 < result["AP"] < 1

    category_ids = np.array([category.id for category in model.categories.all], np.uint8)
    maps = []
    for number, prediction in enumerate(predicted):
        maps.append(str(tmp_path / "found" / f"{number}_labels.png"))
        cv2.imwrite(maps[-1], category_ids[prediction.semantic])
    arguments: Any = copy.copy(official.args)
    arguments.quiet, arguments.JSONOutput, arguments.evalInstLevelScore = True, False, False
    label_ids = [path.replace("instanceIds", "labelIds") for path in instance_ids]
    scores = official.evaluateImgLists(maps, label_ids, arguments)
    assert result["mIoU"] == pytest.approx(scores["averageScoreClasses"], rel=0, abs=1e-12)
    assert 0.1 < result["mIoU"] < 1


# ------------------------------------------------------------------------------------------------------------ processes


def share(seeds) -> tuple[Any, ...]:
    return quality([scene(seed) for seed in seeds]), precision(seeds), mean_iou(seeds)


def test_processes_merge_to_the_same():
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        others = pool.submit(share, range(0, 20, 2))
        mine = share(range(1, 20, 2))
        for measure, other, whole in zip(mine, others.result(), share(range(20)), strict=True):
            measure.merge(other)
            assert json.dumps(rounded(measure.result())) == json.dumps(rounded(whole.result()))


def rounded(value):
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    return (
        [rounded(item) for item in value]
        if isinstance(value, list)
        else round(value, 12)
        if isinstance(value, float)
        else value
    )
