"""Data and commands from users, and interruptions, that failed in public bug reports of other projects."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from folders import BALL, CLASSES, FLAGS, FLOOR, SKY, build, draw, edit, json_file, micro, segments, write_png
from PIL import Image

import spinet.training.run
from spinet import load_model
from spinet.cli import main
from spinet.config import ConfigError
from spinet.data import DataError, open_dataset
from spinet.data.prepare import check
from spinet.data.readers import DataWarning, as_image, read_image, read_panoptic_png
from spinet.data.segments import decode_ids, encode_ids
from spinet.evaluation import EvaluationError, evaluate_files
from spinet.evaluation.validate import validate
from spinet.files import LockError, owned
from spinet.inference.files import PictureError, PredictionWriter
from spinet.inference.predict import predict
from spinet.records import RecordError, find_records, read_record
from spinet.speed.optimize import optimize_for_inference
from spinet.training.checkpoint import TrainError, load_checkpoint
from spinet.training.loop import train
from spinet.training.resume import remedy_for_non_finite
from spinet.weights import WeightsError

SYSTEMS = ("spinet", "panoptic_fpn", "panoptic_deeplab", "upsnet", "condinst")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return build(tmp_path / "data")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A data folder and a finished run on it; tests damage copies."""
    root = tmp_path_factory.mktemp("trained")
    train(micro(), data=build(root / "data"), out=root / "run")
    return root / "data", root / "run"


def command(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    """Exit status of `spinet`."""
    monkeypatch.setattr(sys, "argv", ["spinet", *map(str, arguments)])
    try:
        main()
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


def process(*arguments: object, **options: Any) -> subprocess.Popen[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    run = [sys.executable, "-m", "spinet.cli", *map(str, arguments)]
    return subprocess.Popen(run, env=environment, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, **options)


# --- before the first iteration -----------------------------------------------


def no_area(root: Path) -> None:
    edit(root, lambda content: [segment.pop("area") for segment in segments(content)])


def booleans(root: Path) -> None:
    edit(root, lambda content: [entry.update(isthing=bool(entry["isthing"])) for entry in content["categories"]])
    edit(root, lambda content: [segment.update(iscrowd=False) for segment in segments(content)])


def other_order_and_colours(root: Path) -> None:
    edit(root, lambda content: content["categories"].reverse(), "val")
    edit(root, lambda content: [entry.update(color=[1, 2, 3]) for entry in content["categories"]], "val")


def more_classes(root: Path) -> None:
    more = [{"id": 1000 + number, "name": f"c{number}", "isthing": number % 2} for number in range(300)]
    edit(root, lambda content: content["categories"].extend(more), "train")  # val need not list classes that it lacks


@pytest.mark.parametrize("change", [no_area, booleans, other_order_and_colours, more_classes])
def test_what_the_format_allows_is_trained_and_evaluated(data: Path, tmp_path: Path, change):
    change(data)
    assert check(data).ok
    assert train(micro(iterations=1), data=data, out=tmp_path / "run")["status"] == "finished"


def val_picture_missing(root: Path) -> None:
    (root / "val/val001.png").unlink()


def val_picture_truncated(root: Path) -> None:
    path = root / "val/val001.png"
    path.write_bytes(path.read_bytes()[:-400])


def train_picture_truncated(root: Path) -> None:
    path = root / "train/train003.png"
    path.write_bytes(path.read_bytes()[:-400])


def val_map_damaged(root: Path) -> None:
    path = root / "annotations/panoptic_val/val001.png"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


def val_class_of_another_kind(root: Path) -> None:
    edit(root, lambda content: content["categories"][1].update(isthing=0), "val")


def val_class_of_another_name(root: Path) -> None:
    edit(root, lambda content: content["categories"][1].update(name="cube"), "val")


def val_class_unknown(root: Path) -> None:
    edit(root, lambda content: content["categories"][1].update(id=4), "val")
    edit(root, lambda content: [s.update(category_id=4) for s in segments(content) if s["category_id"] == 3], "val")


def no_classes(root: Path) -> None:
    edit(root, lambda content: content["categories"].clear())
    edit(root, lambda content: [annotation.update(segments_info=[]) for annotation in content["annotations"]])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (val_picture_missing, "val001.png: no such file"),
        (val_picture_truncated, "val001.png"),
        (train_picture_truncated, "train003.png"),
        (val_map_damaged, "val001.png: damaged"),
        (val_class_of_another_kind, "'ball' .stuff., is 'ball' .thing. elsewhere"),
        (val_class_of_another_name, "'cube'.* is 'ball'"),
        (val_class_unknown, "category 4, .* is unknown"),
        (no_classes, "no category"),
    ],
)
def test_what_evaluation_would_find_is_found_at_once(data: Path, tmp_path: Path, change, message: str):
    change(data)
    with pytest.raises(DataError, match=message) as error:
        train(micro(), data=data, out=tmp_path / "run")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()
    assert not check(data).ok


def test_one_fault_brings_no_others(data: Path):
    edit(data, lambda content: content["categories"][1].pop("isthing"))
    assert {kind: tally.count for kind, tally in check(data).faults.kinds.items()} == {"malformed entry": 2}


def test_images_without_segments_are_counted(data: Path):
    def empty(content: dict[str, Any]) -> None:
        content["annotations"][0]["segments_info"] = []

    edit(data, empty)
    for split in ("train", "val"):
        write_png(data / f"annotations/panoptic_{split}/{split}000.png", np.zeros((64, 96, 3), np.uint8))
    report = check(data)
    assert report.ok
    assert report.warnings.kinds["image without any segment"].count == 2


def test_weights_outlive_an_evaluation_that_fails(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    out, seen = tmp_path / "run", []

    def fail(model: Any, dataset: Any, **_: Any) -> Any:
        seen.append(len(dataset))
        raise EvaluationError("a value that nobody foresaw")

    monkeypatch.setattr(spinet.training.run, "validate", fail)
    with pytest.raises(TrainError, match=r"nobody foresaw; training is done; evaluate with: spinet evaluate --weights"):
        train(micro(iterations=1), data=data, out=out)
    assert seen == [2]
    record = read_record(out / "record.json")
    assert (record["status"], record["error"]) == ("trained", "a value that nobody foresaw")
    assert command(monkeypatch, "evaluate", "--weights", out / "model.safetensors", "--data", data) == 0
    record = read_record(out / "record.json")
    assert record["status"] == "finished"
    again = validate(optimize_for_inference(load_model(out / "model.safetensors")), open_dataset(data, "val"))
    assert record["metrics"]["mIoU"] == pytest.approx(again["summary"]["mIoU"], nan_ok=True)
    assert "error" not in record


# --- identity -----------------------------------------------------------------


def perfect_predictions(data: Path, out: Path, ids: dict[str, Any] | None = None) -> Path:
    """The files of `predict` for perfect predictions."""
    dataset = open_dataset(data, "val")
    with PredictionWriter(out, dataset.categories, ids=ids) as writer:
        for record in sorted(dataset.records, key=lambda record: record.image.name):
            ids_, things = decode_ids(read_panoptic_png(record.panoptic)), {c.id for c in dataset.categories.things}
            found = [{**segment, "isthing": segment["category_id"] in things} for segment in record.segments_info]
            prediction: Any = SimpleNamespace(ids=ids_, segments=found)
            writer.write(record.image.stem, read_image(record.image), prediction, file_name=record.image.name)
    return out / "panoptic.json"


@pytest.mark.parametrize("identity", [lambda n: 9 - n, lambda n: 100 + n, lambda n: f"picture {n}", str, lambda n: n])
def test_predictions_are_matched_by_name_where_ids_differ(tmp_path: Path, identity):
    data = build(tmp_path / "data", counts=(1, 4))

    def change(content: dict[str, Any]) -> None:
        for image, annotation in zip(content["images"], content["annotations"], strict=True):
            image["id"] = annotation["image_id"] = identity(image["id"])

    edit(data, change, "val")
    assert evaluate_files(json_file(data), perfect_predictions(data, tmp_path / "out"))["All"]["pq"] == 1


def test_names_that_contradict_ids_are_refused(data: Path, tmp_path: Path):
    predicted = perfect_predictions(data, tmp_path / "out")
    content = json.loads(predicted.read_text())
    for image, annotation in zip(content["images"], content["annotations"], strict=True):
        (tmp_path / "out/panoptic" / annotation["file_name"]).rename(tmp_path / f"out/panoptic/{image['id']}x.png")
        image["file_name"] = annotation["file_name"] = f"{image['id']}x.png"
    predicted.write_text(json.dumps(content))
    with pytest.warns(RuntimeWarning, match="sha256"), pytest.raises(EvaluationError, match="has the file_name"):
        evaluate_files(json_file(data), predicted)


def test_predict_keeps_names_and_takes_the_ids_of_a_ground_truth(
    trained: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    _, run = trained
    data = build(tmp_path / "data", counts=(1, 2))
    edit(data, lambda content: [image.update(id=40 - image["id"]) for image in content["images"]], "val")
    edit(data, lambda content: [a.update(image_id=40 - a["image_id"]) for a in content["annotations"]], "val")
    (data / "val/deep").mkdir()
    Image.open(data / "val/val000.png").save(data / "val/deep/val000.jpg")
    weights = ["--weights", run / "model.safetensors"]
    assert command(monkeypatch, "predict", data / "val", *weights, "--out", tmp_path / "a") == 0
    content = json.loads((tmp_path / "a/panoptic.json").read_text())
    assert {image["file_name"] for image in content["images"]} == {"val000.png", "val001.png", "deep/val000.jpg"}
    assert {a["file_name"] for a in content["annotations"]} == {"val000.png", "val001.png", "deep_val000.png"}
    like = ["--like", json_file(data)]
    assert command(monkeypatch, "predict", data / "val", *weights, *like, "--out", tmp_path / "b") == 0
    assert "left out" in capsys.readouterr().err
    content = json.loads((tmp_path / "b/panoptic.json").read_text())
    assert {(image["file_name"], image["id"]) for image in content["images"]} == {
        ("val000.png", 39),
        ("val001.png", 38),
    }
    assert command(monkeypatch, "predict", data / "train", *weights, *like, "--out", tmp_path / "c") == 1
    assert "none of the 1 images" in capsys.readouterr().err


def test_folders_of_png_files_can_be_named(data: Path, monkeypatch: pytest.MonkeyPatch):
    (data / "annotations/panoptic_val").rename(data / "pngs")
    files = ["--gt-json", json_file(data), "--pred-json", json_file(data)]
    assert command(monkeypatch, "evaluate", *files) == 1
    assert command(monkeypatch, "evaluate", *files, "--gt-dir", data / "pngs", "--pred-dir", data / "pngs") == 0


# --- readers ------------------------------------------------------------------


def turned(path: Path, orientation: int) -> None:
    """Stores a rotated image with EXIF orientation, so that a viewer shows the original."""
    back = {3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}
    exif = Image.Exif()
    exif[274] = orientation
    Image.open(path).transpose(back[orientation]).save(path, exif=exif)


@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_exif_is_honoured_by_all_readers(data: Path, orientation: int):
    path = data / "val/val000.png"
    upright = read_image(path)
    turned(path, orientation)
    assert (read_image(path) == upright).all()
    assert (as_image(Image.open(path)) == upright).all()
    assert (open_dataset(data, "val").read(0).image == upright).all()
    report = check(data)
    assert report.ok
    doubtful = "image turned by EXIF" in report.warnings.kinds  # a quarter turn with matching sizes is accepted
    assert doubtful == (orientation == 3)


def test_an_annotation_of_the_stored_picture_is_named(data: Path, tmp_path: Path):
    write_png(data / "val/val000.png", np.zeros((96, 64, 3), np.uint8))
    turned(data / "val/val000.png", 6)
    edit(data, lambda content: content["images"][0].update(height=64, width=96), "val")
    image = Image.open(data / "val/val000.png")
    assert image.size == (96, 64)
    with pytest.raises(DataError, match="is 64 × 96 pixels after applying its EXIF orientation 6"):
        train(micro(), data=data, out=tmp_path / "run")


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
def test_deep_pictures_are_scaled_by_their_range(tmp_path: Path, bits: int):
    shallow = np.random.default_rng(0).integers(0, 256, (16, 16, 3)).astype(np.uint8)
    shallow[0] = 255
    deep = np.rint(shallow * ((2**bits - 1) / 255)).astype(np.uint16)
    for ending in (".png", ".tif"):
        write_png(tmp_path / "deep.png", deep)
        path = (tmp_path / "deep.png").rename(tmp_path / f"deep{ending}")
        if bits > 8:
            with pytest.warns(DataWarning, match=f"{2**bits - 1} were scaled"):
                assert (read_image(path) == shallow).all()
        else:
            assert (read_image(path) == shallow).all()


def as_kind(kind: str, ids: np.ndarray, path: Path) -> None:
    match kind:
        case "16 bits":
            write_png(path, ids.astype(np.uint16))
        case "16-bit colours":
            write_png(path, encode_ids(ids).astype(np.uint16))
        case "grey":
            write_png(path, ids.astype(np.uint8))
        case "palette":
            Image.fromarray(encode_ids(ids)).quantize().save(path)
        case "JPEG":
            Image.fromarray(encode_ids(ids)).save(path, format="JPEG")


@pytest.mark.parametrize("kind", ["16 bits", "16-bit colours", "grey", "palette", "JPEG"])
def test_a_map_that_cannot_be_one_is_refused_by_all(data: Path, tmp_path: Path, kind: str):
    path = data / "annotations/panoptic_val/val000.png"
    ids, _ = draw(np.random.default_rng(0), (64, 96))
    as_kind(kind, ids % 251, path)
    assert "panoptic PNG of another kind" in check(data).faults.kinds
    with pytest.raises(DataError, match=r"val000\.png"):
        open_dataset(data, "val").load(0)
    with pytest.raises(DataError, match=r"val000\.png"):
        train(micro(), data=data, out=tmp_path / "run")
    with pytest.raises(EvaluationError, match=r"val000\.png"):
        evaluate_files(json_file(data), json_file(data))


def test_alpha_of_a_map_is_dropped_by_all(data: Path):
    path = data / "annotations/panoptic_val/val000.png"
    before = read_panoptic_png(path)
    Image.fromarray(before).convert("RGBA").save(path)
    assert (read_panoptic_png(path) == before).all()
    assert check(data).ok
    assert evaluate_files(json_file(data), json_file(data))["All"]["pq"] == 1


def test_pictures_of_the_python_interface(trained: tuple[Path, Path], tmp_path: Path):
    model = load_model(trained[1] / "model.safetensors")
    grey = np.random.default_rng(0).integers(0, 256, (40, 60)).astype(np.uint8)
    rgb = np.stack([grey] * 3, axis=-1)
    write_png(tmp_path / "x.png", rgb)
    expected = predict(model, rgb).ids
    for image in (grey, Image.fromarray(rgb), Image.fromarray(grey), tmp_path / "x.png", str(tmp_path / "x.png")):
        assert (predict(model, image).ids == expected).all()
    for wrong in (None, rgb.astype(float), rgb[None], rgb.astype(np.uint16), [1], rgb[..., :2], Image.new("F", (4, 4))):
        with pytest.raises(ValueError, match="an image is uint8"):
            predict(model, wrong)
    with pytest.raises(ValueError, match=r"none\.jpg"):
        predict(model, tmp_path / "none.jpg")


# --- empty groups of classes --------------------------------------------------


@pytest.mark.parametrize("classes", [[BALL], [SKY], [SKY, FLOOR]], ids=["one thing", "one stuff", "stuff"])
@pytest.mark.parametrize("system", SYSTEMS)
def test_a_group_of_classes_may_be_empty(system: str, classes: list[dict[str, Any]], tmp_path: Path):
    data = build(tmp_path / "data", classes=classes, counts=(2, 1))
    record = train(micro(system, iterations=1), data=data, out=tmp_path / "run")
    assert record["status"] == "finished"
    columns = ("PQ_th", "AP") if classes == [BALL] else ("PQ_st",)
    assert all(0 <= record["metrics"][name] <= 100 for name in columns)
    model = load_model(tmp_path / "run/model.safetensors")
    assert predict(model, np.zeros((50, 70, 3), np.uint8), instances=True).ids.shape == (50, 70)


def test_a_semantic_output_without_classes_is_refused(tmp_path: Path):
    data = build(tmp_path / "data", classes=[BALL])
    config = micro()
    config = replace(config, objective=replace(config.objective, semantic_classes="stuff"))
    with pytest.raises(ConfigError, match="the data have no stuff; choose 'all'"):
        train(config, data=data, out=tmp_path / "run")


# --- resuming ---------------------------------------------------------------


def test_an_evaluation_that_was_cut_off_is_done_after_the_restart(data: Path, tmp_path: Path, monkeypatch):
    def killed(run, done):
        raise MemoryError

    config, out = micro(evaluate_every=2), tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(spinet.training.run.Run, "judge", killed)
        with pytest.raises(MemoryError):
            train(config, data=data, out=out)
    assert load_checkpoint(out / "checkpoint_0000002.pt")["evaluations"] == {}
    assert train(config, data=data, out=out, resume=True)["evaluations"].keys() == {"2"}


def test_what_cannot_matter_may_change_and_the_rest_is_named(data: Path, tmp_path: Path):
    out = tmp_path / "run"
    train(micro(iterations=4), data=data, out=out)
    before = (out / "model.safetensors").read_bytes()
    again = micro(iterations=4, checkpoint_every=1, evaluate_every=2, images_per_device=1)
    again = replace(again, input=replace(again.input, workers=1))
    record = train(again, data=data, out=out, resume=True)
    assert record["history"] == [
        {"iteration": 4, "changed": {"train.checkpoint_every": [2, 1], "train.evaluate_every": [0, 2]}}
    ]
    assert (out / "model.safetensors").stat().st_size == len(before)
    assert record["evaluations"] == {}
    longer = train(micro(iterations=6, learning_rate=1e-4, evaluate_every=5), data=data, out=out, resume=True)
    assert longer["iterations"] == 6
    assert longer["evaluations"].keys() == {"5"}
    assert load_checkpoint(out / "checkpoint_0000006.pt")["evaluations"] == longer["evaluations"]
    assert longer["history"][-1]["changed"]["train.learning_rate"] == [1e-3, 1e-4]
    other = replace(again, objective=replace(again.objective, things=1.0))
    with pytest.raises(ValueError, match=r"other settings: objective.things was 2.0, is 1.0"):
        train(other, data=data, out=out, resume=True)
    edit(data, lambda content: segments(content)[0].update(area=1), "val")
    edit(data, lambda content: segments(content)[0].pop("area"), "val")
    with pytest.raises(ValueError, match="trained on other data"):
        train(micro(iterations=8), data=data, out=out, resume=True)


def test_the_remedy_for_a_loss_that_is_not_finite_works(data: Path, tmp_path: Path):
    out = tmp_path / "run"
    wild = micro(iterations=6, checkpoint_every=1, learning_rate=1e18, clip_norm=1e30, optimizer="sgd")
    with pytest.raises(TrainError, match="then --resume, which starts from scratch"):
        train(wild, data=data, out=out)
    assert read_record(out / "record.json")["status"] == "failed"
    tame = replace(wild, train=replace(wild.train, learning_rate=1e-4))
    assert train(tame, data=data, out=out, resume=True)["status"] == "finished"


def test_only_the_checkpoint_that_is_bad_itself_is_set_aside(tmp_path: Path):
    for iteration in (2, 4):
        (tmp_path / f"checkpoint_{iteration:07d}.pt").touch()
    assert "continues from checkpoint_0000004.pt" in remedy_for_non_finite(tmp_path, 5, "fp32", act=True)
    assert "continues from checkpoint_0000004.pt" in remedy_for_non_finite(tmp_path, 4, "fp16", act=True)
    assert "continues from checkpoint_0000002.pt" in remedy_for_non_finite(tmp_path, 4, "fp32", act=True)
    assert (tmp_path / "checkpoint_0000004.nonfinite").exists()


# --- one bad file -------------------------------------------------------------


def test_predict_goes_on_behind_a_bad_file(
    trained: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    folder, out = tmp_path / "photos", tmp_path / "out"
    for name in "abc":
        write_png(folder / f"{name}.png", np.zeros((40, 60, 3), np.uint8))
    (folder / "b.png").write_bytes((folder / "b.png").read_bytes()[:60])
    for name in ("._a.png", ".hidden/d.png", "drive.mp4", "phone.HEIC", "notes.txt"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"\0\5\x16\7")
    weights = trained[1] / "model.safetensors"
    assert command(monkeypatch, "predict", folder, "--weights", weights, "--out", out) == 1
    said = capsys.readouterr().err.splitlines()
    assert len([line for line in said if line.startswith("error:")]) == 1
    assert "b.png" in said[-1]
    left_out = next(line for line in said if line.startswith("left out"))
    assert "drive.mp4" in left_out
    assert "phone.HEIC" in left_out
    assert "._a" not in left_out
    assert {path.name for path in (out / "panoptic").iterdir()} == {"a.png", "c.png"}
    assert len(json.loads((out / "panoptic.json").read_text())["images"]) == 2


def test_runs_and_report_go_on_behind_a_bad_record(
    trained: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    runs = tmp_path / "runs"
    runs.mkdir()
    content = (trained[1] / "record.json").read_bytes()
    (runs / "good.json").write_bytes(content)
    (runs / "cut.json").write_bytes(content[:300])
    (runs / "changed.json").write_bytes(content.replace(b'"seed": 0', b'"seed": 1', 1))
    (runs / "._good.json").write_bytes(b"\0")
    for arguments in (["runs", runs], ["report", runs, "--out", tmp_path / "report"]):
        assert command(monkeypatch, *arguments) == 1
        said = capsys.readouterr()
        assert [name for name in ("cut.json", "changed.json", "good.json:") if name in said.err] == [
            "cut.json",
            "changed.json",
        ]
        assert said.out
    broken: list[RecordError] = []
    assert list(find_records(runs, broken=broken)) == [runs / "good.json"]
    assert len(broken) == 2


# --- owner of a folder --------------------------------------------------------


def test_a_folder_has_one_owner_until_its_process_ends(tmp_path: Path):
    out = tmp_path / "new/run"
    hold = f"from pathlib import Path\nfrom spinet.files import owned\nwith owned(Path({str(out)!r})): print(); input()"
    with subprocess.Popen([sys.executable, "-c", hold], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as owner:
        assert owner.stdout
        owner.stdout.readline()
        with pytest.raises(LockError, match=f"in use by process {owner.pid}"), owned(out):
            pass
        owner.kill()
        owner.wait()
        with owned(out):
            (out / "kept").touch()
    assert [path.name for path in out.iterdir()] == ["kept"]
    with owned(tmp_path / "empty/deep"):
        pass
    assert not (tmp_path / "empty").exists()


def test_a_finished_run_without_checkpoints_is_not_overwritten(data: Path, tmp_path: Path):
    out = tmp_path / "run"
    train(micro(iterations=1), data=data, out=out)
    for path in out.glob("checkpoint_*"):
        path.unlink()
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    for resume, message in ((False, "holds a run already"), (True, "no checkpoint to resume from")):
        with pytest.raises(TrainError, match=message):
            train(micro(iterations=1), data=data, out=out, resume=resume)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_predictions_are_not_overwritten(data: Path, tmp_path: Path):
    perfect_predictions(data, tmp_path / "out")
    with pytest.raises(PictureError, match="holds predictions already"):
        perfect_predictions(data, tmp_path / "out")
    (tmp_path / "file").touch()
    with pytest.raises(LockError, match="is a file"):
        PredictionWriter(tmp_path / "file", open_dataset(data, "val").categories)
    with pytest.raises(LockError, match="is a file"):
        train(micro(), data=data, out=tmp_path / "file")


# --- interruption -------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "status", "given", "to_add"),
    [(signal.SIGINT, 130, [], " with --resume"), (signal.SIGTERM, 143, ["--resume"], "")],
)
def test_a_signal_saves_what_was_trained(
    data: Path, tmp_path: Path, number: signal.Signals, status: int, given: list[str], to_add: str
):
    out = tmp_path / "run"
    arguments = ["train", "--data", data, "--out", out, *FLAGS, "--train.iterations", 4000, "--input.workers", 1]
    run = process(*arguments, "--train.checkpoint-every", 4000, *given, start_new_session=True)
    deadline = time.time() + 120
    while not (out / "log.csv").exists() or len((out / "log.csv").read_text().splitlines()) < 3:
        assert time.time() < deadline
        assert run.poll() is None, run.communicate()
        time.sleep(0.05)
    os.killpg(run.pid, number)  # like a terminal or a scheduler: loader processes get the signal, too
    _, said = run.communicate(timeout=40)
    assert run.returncode == status
    assert said.splitlines()[-1].endswith(f"; the same command{to_add} goes on")
    record = read_record(out / "record.json")
    assert record["status"] == "interrupted"
    saved = next(out.glob("checkpoint_*.pt"))
    assert int(saved.stem.split("_")[1]) == len((out / "log.csv").read_text().splitlines()) - 1
    config = micro(iterations=int(saved.stem.split("_")[1]) + 1, checkpoint_every=4000)
    assert train(config, data=data, out=out, resume=True)["status"] == "finished"


def test_what_is_said_of_an_interruption_is_true(trained: tuple[Path, Path], tmp_path: Path):
    weights = trained[1] / "model.safetensors"
    folder = tmp_path / "photos"
    for number in range(3000):
        write_png(folder / f"{number}.png", np.zeros((40, 60, 3), np.uint8))
    run = process("predict", folder, "--weights", weights, "--out", tmp_path / "out")
    deadline = time.time() + 120
    while len(list((tmp_path / "out").glob("panoptic/*"))) < 3 and time.time() < deadline:
        time.sleep(0.02)
    run.send_signal(signal.SIGINT)
    _, said = run.communicate(timeout=60)
    assert run.returncode == 130, said
    pictures = len(json.loads((tmp_path / "out/panoptic.json").read_text())["images"])
    assert said.splitlines()[-1] == f"interrupted: the predictions of {pictures} images are in {tmp_path / 'out'}"


@pytest.mark.parametrize("part", ["rehearse", "Run.step"], ids=["before the first step", "in a step"])
def test_loader_processes_end_although_an_exception_remembers_them(
    part: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def fail(*_: Any, **__: Any):
        assert multiprocessing.active_children()
        raise MemoryError("too large")

    monkeypatch.setattr(f"spinet.training.run.{part}", fail)
    config = micro()
    config = replace(config, input=replace(config.input, workers=1))
    with pytest.raises(MemoryError) as error:
        train(config, data=data, out=tmp_path / "run")
    assert error.value.__traceback__
    assert not multiprocessing.active_children()


# --- one clear line ------------------------------------------------------------


def test_an_error_of_a_loader_process_is_one_line(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(spinet.training.run, "check_data", lambda *_, **__: None)  # it would find the fault earlier
    (data / "train/train002.png").unlink()
    config = micro()
    config = replace(config, input=replace(config.input, workers=1))
    with pytest.raises(DataError, match=r"train002\.png: No such file") as error:
        train(config, data=data, out=tmp_path / "run")
    assert "Traceback" not in str(error.value)
    assert read_record(tmp_path / "run/record.json")["status"] == "failed"


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--train.batch-size 0", "train.batch_size: 0 is below 1"),
        ("--train.reference-batch 0", "train.reference_batch: 0 is below 1"),
        ("--train.checkpoint-every 0", "train.checkpoint_every: 0 is below 1"),
        ("--train.learning-rate nan", "train.learning_rate: nan is not finite"),
        ("--input.scale 2 1", "input.scale: 2.0 is above 1.0"),
        ("--input.crop 0 64", "input.crop: 0 is below 1"),
        ("--inference.threshold 1.5", "inference.threshold: 1.5 is above 1"),
        ("--model.kernel 2", "model.kernel: 2 is even"),
        ("--model.freeze-stages 6", "model.freeze_stages: 6 is above 5"),
    ],
)
def test_numbers_that_make_no_sense_are_named(
    option: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    arguments = ["train", "--data", tmp_path, "--out", tmp_path / "run", *FLAGS, *option.split()]
    assert command(monkeypatch, *arguments) == 2
    assert capsys.readouterr().err.strip() == f"error: configuration field {message}" + (
        "; give the smaller one first" if "scale" in option else "; choose an odd number" if "even" in message else ""
    )


def test_wrong_weights_and_devices_are_told_apart(
    trained: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    data, run = trained
    checkpoint = next(run.glob("checkpoint_*.pt"))
    with pytest.raises(WeightsError, match=r"a checkpoint.*give the model\.safetensors"):
        load_model(checkpoint)
    with pytest.raises(WeightsError, match=r"a folder; give the model\.safetensors"):
        load_model(run)
    content = bytearray((run / "model.safetensors").read_bytes())
    content[-5] ^= 1
    (tmp_path / "flipped.safetensors").write_bytes(content)
    with pytest.raises(WeightsError, match="damaged, its sha256"):
        load_model(tmp_path / "flipped.safetensors")
    arguments = ["predict", data / "val", "--weights", run / "model.safetensors", "--out", tmp_path / "out"]
    assert command(monkeypatch, *arguments, "--device", "gpu") == 2
    assert "--device gpu: cannot be used" in capsys.readouterr().err


def test_pictures_of_a_pixel_train(tmp_path: Path):
    data = build(tmp_path / "data", size=(5, 3), classes=CLASSES)
    assert train(micro(iterations=1), data=data, out=tmp_path / "run")["status"] == "finished"


def test_a_city_may_lie_in_a_folder_of_another_name(tmp_path: Path):
    from spinet.synthcity import generate

    generate(tmp_path / "city", num_train=1, num_val=1, size=(64, 128), progress=False)
    for part in ("gtFine", "leftImg8bit"):
        (tmp_path / "city" / part / "val/synthcity").rename(tmp_path / "city" / part / "val/berlin")
    assert check(tmp_path / "city").ok
    assert open_dataset(tmp_path / "city", "val").load(0).labels.numel()
