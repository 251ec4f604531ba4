"""The command line, which other scripts depend on: options, files, keys and messages."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from spinet import load_model
from spinet.cli import configure, main
from spinet.config import PRESETS, TINY, Config, ConfigError, to_dict
from spinet.config.baselines import BASELINES
from spinet.data import open_dataset
from spinet.data.segments import decode_ids
from spinet.evaluation import read_ids
from spinet.inference.files import PictureError, read_pictures
from spinet.options import parse
from spinet.synthcity import generate
from spinet.systems import build_model
from spinet.weights import save_model

REALDATA = os.environ.get("SPINET_REALDATA")


@pytest.fixture(scope="module")
def city(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("city")
    generate(root, num_train=1, num_val=2, size=(64, 128), progress=False)
    return root


@pytest.fixture(scope="module")
def weights(city: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained network with a low threshold, so that it finds many things."""
    model_config = replace(TINY.model, fpn_channels=16, filter_channels=16, feature_channels=16, head_convs=1)
    config = replace(TINY, model=model_config, inference=replace(TINY.inference, threshold=0.005, keep=0.0))
    path = tmp_path_factory.mktemp("weights") / "model.safetensors"
    save_model(build_model(config, open_dataset(city, "val").categories), path)
    return path


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", ["spinet", *map(str, arguments)])
    main()


def configured(arguments: str) -> Config:
    options = parse(arguments.split())
    fields = {name: value for name, value in options.items() if "." in name}
    chosen = {name: options[name] for name in ("preset", "system", "init", "base")}
    return configure(chosen.pop("preset"), **chosen, fields=fields)[0]


def test_every_field_is_an_option_and_presets_are_where_they_start():
    start = "train --data D --out O"
    for preset, config in ((name, preset.config) for name, preset in PRESETS.items()):
        found = configured(f"{start} --preset {preset} --train.iterations 7 --input.crop 64 128 --resume")
        assert found.train == replace(config.train, iterations=7)
        assert found.input == replace(config.input, crop=(64, 128))
        assert (found.model, found.objective) == (config.model, config.objective)
    found = configured(f"{start} --train.checkpoint_every=5 --train.seed 3 --objective.no-multi-class-dice")
    assert (found.train.checkpoint_every, found.train.seed) == (5, 3)
    assert not found.objective.multi_class_dice
    found = configured(f"{start} --system panoptic_deeplab --baseline.rates 1 2 3 --input.crop None --model.norm group")
    assert found.input.crop is None
    assert found.baseline.rates == (1, 2, 3)
    assert found.model.norm == "group"
    options = parse(start.split())
    assert not options["resume"]
    assert not [name for name in options if "." in name], "what is not given is left to the preset"


def test_weights_to_start_from_bring_their_network(weights: Path):
    found = configured(f"train --data D --out O --preset small --init {weights} --model.reach 80")
    assert found == replace(PRESETS["small"].config, model=replace(load_model(weights).config.model, reach=80))


def test_help_is_complete_and_waits_for_no_pytorch():
    command = [
        sys.executable,
        "-c",
        "import sys; from spinet.cli import main\ntry: main()\nfinally: print(*sys.modules, file=sys.stderr)",
    ]
    result = subprocess.run([*command, "train", "--help"], capture_output=True, text=True, check=True)
    assert {"torch", "timm", "cv2", "pycocotools"} & set(result.stderr.split()) == set()
    shown = " ".join(result.stdout.split())
    for config in (*(PRESETS["tiny"].with_system(system) for system in BASELINES), TINY):
        for section, fields in to_dict(config).items():
            names = [name.replace("_", "-") for name in fields or {} if (section, name) != ("baseline", "system")]
            assert not [name for name in names if f" --{section}.{name}" not in shown]
    assert "--train.iterations INT §5.2, Cityscapes (default: tiny 1600, small 6000, cityscapes_r50 95000" in shown
    assert "--inference.agreement FLOAT|None" in shown
    assert "--objective.things FLOAT λ_2 (default: tiny 2.0, small 2.0, cityscapes_r50 5.0, coco_r50 3.0)" in shown


@pytest.mark.parametrize(
    ("arguments", "culprit"),
    [
        ("train --data D --out O --train.iteration 7", "--train.iteration"),
        ("train --data D --out O --train.seed seven", "seven"),
        ("train --data D --out O --preset huge", "huge"),
        ("train --data D", "--out"),
        ("paint", "paint"),
        ("", "COMMAND"),
        ("data paint", "paint"),
        ("bench --repeats 0", "--repeats: 0 is below 1"),
        ("predict --out O", "inputs"),
        ("runs --colour", "--colour: no such option"),
    ],
)
def test_wrong_arguments_are_named(arguments: str, culprit: str):
    with pytest.raises(ConfigError, match=culprit) as error:
        configured(arguments)
    assert "\n" not in str(error.value)


def test_errors_are_one_line_and_debug_shows_more(tmp_path: Path):
    command = [sys.executable, "-m", "spinet.cli", "evaluate", "--weights", "none.safetensors", "--data", str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 1
    assert result.stderr.splitlines() == [
        "error: none.safetensors: no such file; give the model.safetensors of a training run"
    ]
    assert "Traceback" in subprocess.run([*command, "--debug"], capture_output=True, text=True).stderr


def test_info_prints_the_counts(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    run(monkeypatch, "info", "--preset", "cityscapes_r50", "--json")
    counts = json.loads(capsys.readouterr().out)
    assert counts["params"] == pytest.approx(42.2e6, rel=0.01)
    assert counts["params_with_auxiliary"] == pytest.approx(42.3e6, rel=0.01)
    assert counts["params_separate"] == pytest.approx(46.6e6, rel=0.01)
    assert counts["macs"] == pytest.approx(0.81e12, rel=0.02)
    assert counts["macs_separate"] == pytest.approx(0.96e12, rel=0.02)
    run(monkeypatch, "info")
    assert "46.6" in capsys.readouterr().out


def test_synth_check_and_truth_against_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    root = tmp_path / "city"
    run(monkeypatch, "data", "synth", root, "--num-train", 1, "--num-val", 1, "--size", 64, 128, "--workers", 1)
    run(monkeypatch, "data", "check", root)
    truth = root / "gtFine" / "cityscapes_panoptic_val.json"
    capsys.readouterr()
    run(monkeypatch, "evaluate", "--gt-json", truth, "--pred-json", truth, "--json", tmp_path / "r.json")
    result = json.loads((tmp_path / "r.json").read_text())
    assert result["All"]["pq"] == result["Things"]["sq"] == result["Stuff"]["rq"] == 1
    assert result["seconds"] > 0
    shutil.rmtree(root / "gtFine" / "cityscapes_panoptic_val")
    truth.unlink()
    with pytest.raises(SystemExit):
        run(monkeypatch, "evaluate", "--weights", "w", "--data", root)
    run(monkeypatch, "data", "prepare", "cityscapes", root)
    assert truth.exists()
    next((root / "leftImg8bit" / "val").rglob("*.png")).write_bytes(b"no picture")
    with pytest.raises(SystemExit) as stop:
        run(monkeypatch, "data", "check", root)
    assert stop.value.code == 1
    assert "1" in capsys.readouterr().out


def test_evaluate_weights_equals_evaluate_files_of_predict(
    city: Path, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The same scores in memory and from the files that `spinet predict` writes."""
    run(monkeypatch, "evaluate", "--weights", weights, "--data", city, "--json", tmp_path / "memory.json")
    memory = json.loads((tmp_path / "memory.json").read_text())
    assert memory["Components"].keys() >= {"All", "Things", "Stuff", "per_class"}
    run(monkeypatch, "predict", city / "leftImg8bit" / "val", "--weights", weights, "--out", tmp_path / "out")
    content = json.loads((tmp_path / "out" / "panoptic.json").read_text())
    truth = json.loads((city / "gtFine" / "cityscapes_panoptic_val.json").read_text())
    for annotation in content["annotations"]:  # COCO's images have ids; here they are matched by name
        name = annotation["file_name"].removeprefix("synthcity_").removesuffix("_leftImg8bit.png")
        annotation["image_id"] = name
    assert {a["image_id"] for a in content["annotations"]} == {a["image_id"] for a in truth["annotations"]}
    (tmp_path / "out" / "panoptic.json").write_text(json.dumps(content))
    gt = city / "gtFine" / "cityscapes_panoptic_val.json"
    arguments = ["--gt-json", gt, "--pred-json", tmp_path / "out" / "panoptic.json", "--json", tmp_path / "files.json"]
    run(monkeypatch, "evaluate", *arguments)
    files = json.loads((tmp_path / "files.json").read_text())
    assert files["All"] == pytest.approx(memory["All"], abs=1e-12)
    assert memory["All"]["n"] > 0


def test_predict_photo_folder_and_video(
    city: Path, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    photo = next((city / "leftImg8bit" / "val").rglob("*.png"))
    picture = cv2.imread(str(photo))
    video = cv2.VideoWriter(str(tmp_path / "drive.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 5, (128, 64))
    for _ in range(3):
        video.write(picture)
    video.release()
    out = tmp_path / "out"
    run(monkeypatch, "predict", photo, photo.parent, tmp_path / "drive.avi", "--weights", weights, "--out", out)
    content = json.loads((out / "panoptic.json").read_text())
    assert len(content["images"]) == 1 + 2 + 3
    assert len({image["file_name"] for image in content["images"]}) == 6
    assert "drive_000002.png" in {image["file_name"] for image in content["images"]}
    for annotation in content["annotations"]:
        ids = read_ids(out / "panoptic" / annotation["file_name"])
        overlay = cv2.imread(str(out / "overlay" / annotation["file_name"]))
        assert overlay.shape == (64, 128, 3)
        counts = dict(zip(*np.unique(ids, return_counts=True), strict=True))
        counts.pop(0, None)
        assert counts == {segment["id"]: segment["area"] for segment in annotation["segments_info"]}
    names = {category.id for category in load_model(weights).categories.things}
    things = [s for a in content["annotations"] for s in a["segments_info"] if s["category_id"] in names]
    assert things, "the rigged threshold shows no thing"
    assert all({"score", "bbox", "area"} <= thing.keys() for thing in things)
    assert "score" in capsys.readouterr().out


def test_predict_takes_the_weights_of_the_package_and_says_so(
    city: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    photo = next((city / "leftImg8bit" / "val").rglob("*.png"))
    run(monkeypatch, "predict", photo, "--out", tmp_path / "out")
    assert "come with the package" in capsys.readouterr().err
    content = json.loads((tmp_path / "out" / "panoptic.json").read_text())
    assert [entry["id"] for entry in content["categories"]] == [c.id for c in load_model().categories.all]


def test_pictures_that_are_none(tmp_path: Path):
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n")
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    (tmp_path / "empty").mkdir()
    for name in ("broken.png", "broken.mp4", "empty", "missing.jpg"):
        with pytest.raises(PictureError, match=name):
            list(read_pictures([tmp_path / name]))


def test_predict_without_a_picture_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    with pytest.raises(SystemExit):
        run(monkeypatch, "predict", tmp_path / "missing.jpg", "--out", tmp_path / "out")
    assert "missing.jpg: no such file" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_runs_lists_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    from spinet.config import to_dict
    from spinet.records import new_record, write_record

    for seed in (0, 1):
        config = to_dict(replace(TINY, train=replace(TINY.train, seed=seed)))
        record = new_record(
            experiment="e", seed=seed, config=config, data={}, iterations=3, hours=0.5, metrics={"PQ": 12.25 + seed}
        )
        write_record(record, tmp_path / str(seed) / "record.json")
    run(monkeypatch, "runs", tmp_path)
    out = capsys.readouterr().out
    assert "12.25" in out
    assert "13.25" in out
    assert "train.seed" in out


@pytest.mark.skipif(not REALDATA, reason="SPINET_REALDATA is not set")
@pytest.mark.parametrize("name", ["dsb2018", "camvid", "coco_sample"])
def test_real_truth_against_itself_is_100(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    dataset = open_dataset(Path(REALDATA or "") / name, "val")
    raw = dataset.read(0)
    assert set(np.unique(decode_ids(raw.panoptic))) - {0} == set(raw.ids.tolist())
    place = next((Path(REALDATA or "") / name / "annotations").glob("panoptic_val*.json"))
    place = place if "detection" not in place.name else place.with_name("panoptic_val2017.json")
    run(monkeypatch, "evaluate", "--gt-json", place, "--pred-json", place, "--json", tmp_path / "r.json")
    assert json.loads((tmp_path / "r.json").read_text())["All"]["pq"] == 1
