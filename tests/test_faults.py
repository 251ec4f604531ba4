"""The campaign of faults: kills, a full disk, flipped bits, odd data and illegal data; see docs/faults.md.

By default a small sample of each runs. `--faults FILE` runs the long form and writes its table to the file.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from campaign import Campaign, Line, contents, flip, killed, spinet
from folders import FLAGS, build, edit, json_file, micro, save, segments, write_png
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from spinet.cli import main
from spinet.data import open_dataset
from spinet.data.prepare import check
from spinet.data.segments import encode_ids
from spinet.evaluation import evaluate_files
from spinet.inference.predict import predict
from spinet.records import read_record
from spinet.training.checkpoint import find_checkpoints, load_checkpoint
from spinet.training.loop import train
from spinet.training.resume import settled_history
from spinet.weights import load_model

pytestmark = pytest.mark.timeout(3600)  # for the long form
SYSTEMS = ("spinet", "panoptic_fpn", "panoptic_deeplab", "upsnet", "condinst")


@pytest.fixture(scope="module")
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture(scope="module")
def ready(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A data folder and a finished run on it; tests damage copies."""
    root = tmp_path_factory.mktemp("ready")
    arguments = ["train", "--data", build(root / "data"), "--out", root / "run", *FLAGS]
    assert spinet(*arguments) == 0
    return root / "data", root / "run"


def settle(line: Line) -> None:
    assert not line.failures, "\n".join(line.failures)


# --- kills --------------------------------------------------------------------


def test_kills_in_training(campaign: Campaign, ready: tuple[Path, Path], tmp_path: Path, rng: np.random.Generator):
    data, _ = ready
    line = campaign.line("`train` killed at a random moment, then resumed")
    command = ["train", "--data", data, *FLAGS, "--train.iterations", 8]
    began = time.perf_counter()
    assert spinet(*command, "--out", tmp_path / "whole") == 0
    whole = time.perf_counter() - began
    expected = contents(tmp_path / "whole", lambda path: path.suffix == ".safetensors")
    for number in range(campaign.times(2, 25)):
        out = tmp_path / str(number)
        killed(float(rng.uniform(0, whole)), *command, "--out", out)
        before = [path.name for path in find_checkpoints(out)]
        code = spinet(*command, "--out", out, "--resume", said=tmp_path / "said")
        logged = (out / "log.csv").read_text().splitlines() if (out / "log.csv").exists() else []
        sound = contents(out, lambda path: path.suffix == ".safetensors") == expected and len(logged) == 9
        if code == 0 and sound and read_record(out / "record.json")["status"] == "finished":
            line.promised += 1
        else:
            said = (tmp_path / "said").read_text().splitlines()[-1:]
            line.failures.append(f"kill {number}, checkpoints {before}: status {code}, {said}")
        shutil.rmtree(out, ignore_errors=True)
    settle(line)


def test_kills_in_prediction(campaign: Campaign, ready: tuple[Path, Path], tmp_path: Path, rng: np.random.Generator):
    data, run = ready
    line = campaign.line("`predict` killed at a random moment; what is there is whole, and a second one does not mix")
    photos = tmp_path / "photos"
    for number in range(12):
        write_png(photos / f"{number}.png", cv2.imread(str(data / "val/val000.png")))
    command = ["predict", photos, "--weights", run / "model.safetensors"]
    began = time.perf_counter()
    assert spinet(*command, "--out", tmp_path / "whole") == 0
    whole, expected = time.perf_counter() - began, contents(tmp_path / "whole")
    for number in range(campaign.times(1, 10)):
        out = tmp_path / str(number)
        killed(float(rng.uniform(0, whole)), *command, "--out", out)
        left = contents(out) if out.exists() else {}
        second = spinet(*command, "--out", out)
        same = second == 1 and contents(out) == left if left else second == 0 and contents(out) == expected
        if same and left.items() <= expected.items():
            line.promised += 1
        else:
            line.failures.append(f"kill {number}: {len(left)} files, then status {second}")
    settle(line)


def test_kills_in_data_preparation(campaign: Campaign, tmp_path: Path, rng: np.random.Generator):
    line = campaign.line("`data synth` and `data prepare` killed at a random moment, then called again")
    makes = ["data", "synth", tmp_path / "whole", "--num-train", 2, "--num-val", 1, "--size", 64, 128, "--workers", 1]
    began = time.perf_counter()
    assert spinet(*makes) == 0
    whole, expected = time.perf_counter() - began, contents(tmp_path / "whole")
    for number in range(campaign.times(2, 10)):
        root = tmp_path / str(number)
        if number % 2:
            shutil.copytree(tmp_path / "whole", root)
            command = ["data", "prepare", "cityscapes", root]
            killed(float(rng.uniform(0, whole / 2)), *command)
        else:
            command = [*makes[:2], root, *makes[3:]]
            killed(float(rng.uniform(0, whole)), *command)
        code = spinet(*command)
        if code == 0 and contents(root) == expected and check(root).ok:
            line.promised += 1
        else:
            line.failures.append(f"kill {number} of {' '.join(map(str, command[:2]))}: status {code}")
    settle(line)


def test_kills_in_a_sweep(campaign: Campaign, ready: tuple[Path, Path], tmp_path: Path, rng: np.random.Generator):
    """A sweep of one run with the real notebook takes half a minute, so there are few; test_experiments has one."""
    if not campaign.long:
        pytest.skip("test_experiments kills a sweep")
    data, _ = ready
    line = campaign.line("`sweep` killed at a random moment, then called again")
    base = {"model.backbone": "resnet10t", "model.norm": "group", "model.pretrained": False, "model.freeze_stages": 0}
    base |= dict.fromkeys(("model.fpn_channels", "model.filter_channels", "model.feature_channels"), 16)
    base |= {"model.head_convs": 1, "input.crop": [64, 96], "input.workers": 0, "train.iterations": 8}
    base |= {
        "train.checkpoint_every": 2,
        "train.batch_size": 2,
        "train.images_per_device": 2,
        "train.precision": "fp32",
    }
    overrides = [f"{name}={json.dumps(value)}" for name, value in base.items()]
    command = ["sweep", "--data", data, "--groups", "table3", "--rows", "full", "--overrides", *overrides]
    began = time.perf_counter()
    assert _sweep(command, tmp_path / "whole") == 0
    whole = time.perf_counter() - began

    def weights(out: Path) -> list[str]:
        return sorted(contents(out, lambda path: path.suffix == ".safetensors").values())

    expected = weights(tmp_path / "whole")
    for number in range(5):
        out = tmp_path / str(number)
        process = _start_sweep(command, out)
        try:
            process.wait(float(rng.uniform(0, whole)))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)
        process.wait()
        code = _sweep(command, out)
        if code == 0 and weights(out) == expected and len(list(out.glob("*/52_training.ipynb"))) == 1:
            line.promised += 1
        else:
            line.failures.append(f"kill {number}: status {code}")
    settle(line)


def _start_sweep(command: list[Any], out: Path) -> subprocess.Popen[bytes]:
    run = [sys.executable, "-m", "spinet.cli", *map(str, command), "--out", str(out), "--workers", "1"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return subprocess.Popen(run, start_new_session=True, **quiet)  # pyright: ignore[reportArgumentType, reportCallIssue]


def _sweep(command: list[Any], out: Path) -> int:
    """Exit status; child processes notice within seconds that their parent was killed."""
    return _start_sweep(command, out).wait()


# --- a full disk --------------------------------------------------------------


@contextmanager
def small_disk(place: Path) -> Iterator[Path]:
    place.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1g", "tmpfs", str(place)], capture_output=True)
    if made.returncode:
        pytest.skip("only root can mount a small disk")
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


def resize(disk: Path, size: int) -> None:
    subprocess.run(["mount", "-o", f"remount,size={max(4096, size)}", str(disk)], check=True)


@pytest.mark.skipif(sys.platform != "linux", reason="tmpfs is Linux's")
@pytest.mark.parametrize("kind", ["train", "predict", "data synth", "evaluate", "report"])
def test_a_full_disk(kind: str, campaign: Campaign, ready: tuple[Path, Path], tmp_path: Path, rng: np.random.Generator):
    data, run = ready
    line = campaign.line(f"`{kind}` onto a disk that is full at a random write, then again with room")
    weights, truth = run / "model.safetensors", json_file(data)
    with small_disk(tmp_path / "disk") as disk:
        commands: dict[str, list[Any]] = {
            "train": ["train", "--data", data, *FLAGS, "--train.checkpoint-every", 1, "--out", disk / "out"],
            "predict": ["predict", data / "val", "--weights", weights, "--out", disk / "out"],
            "data synth": ["data", "synth", disk / "out", "--num-train", 1, "--num-val", 1, "--size", 64, 128],
            "evaluate": ["evaluate", "--gt-json", truth, "--pred-json", truth, "--json", disk / "out/result.json"],
            "report": ["report", run, "--out", disk / "out"],
        }
        command = commands[kind] + (["--workers", 1] if kind == "data synth" else [])
        assert spinet(*command) == 0
        whole = sum(path.stat().st_size for path in disk.rglob("*") if path.is_file())
        timeless = (
            (lambda path: path.suffix == ".safetensors")
            if kind == "train"
            else (lambda path: path.name != "result.json")
        )
        expected = contents(disk, timeless)
        shutil.rmtree(disk / "out")
        for _ in range(campaign.times(1, 8)):
            free = int(rng.uniform(0.05, 0.95) * whole)
            resize(disk, free)
            code = spinet(*command, said=tmp_path / "said")
            said = [text for text in (tmp_path / "said").read_text().replace("\r", "\n").splitlines() if "rror" in text]
            resize(disk, 2**30)
            named = len(said) == 1 and "No space left" in said[0] and str(disk) in said[0]
            if kind == "predict":  # it does not continue, so nothing is mixed
                shutil.rmtree(disk / "out", ignore_errors=True)
            again = spinet(*command, *(["--resume"] if kind == "train" else []), said=tmp_path / "said")
            if code == 0:
                line.harmless += 1
            elif named and again == 0 and contents(disk, timeless) == expected:
                line.promised += 1
            else:
                line.failures.append(
                    f"{free} of {whole} bytes: {code}, {said}; then {again}, {(tmp_path / 'said').read_text()[-300:]}"
                )
            shutil.rmtree(disk / "out", ignore_errors=True)
    settle(line)


# --- flipped bits -------------------------------------------------------------


@pytest.mark.parametrize(
    "kind", ["weights", "checkpoint", "record", "predictions", "image", "panoptic PNG", "truth on resume"]
)
def test_flipped_bits(
    kind: str, campaign: Campaign, ready: tuple[Path, Path], tmp_path: Path, rng: np.random.Generator
):
    data, run = (shutil.copytree(folder, tmp_path / name) for folder, name in zip(ready, ("data", "run"), strict=True))
    line = campaign.line(f"a bit flipped: {kind}")
    model = load_model(run / "model.safetensors")
    config = model.config
    state = load_checkpoint(find_checkpoints(run)[-1])
    if kind == "predictions":
        assert (
            main_in_process("predict", data / "val", "--weights", run / "model.safetensors", "--out", tmp_path / "p")
            == 0
        )

    def evaluate() -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # an edited file only gives a warning
            return evaluate_files(json_file(data), tmp_path / "p/panoptic.json")["per_class"]

    def resume() -> Any:
        from spinet.training.outcome import data_facts

        facts = data_facts(open_dataset(data, "train"), open_dataset(data, "val"))
        return settled_history(state, config, facts["fingerprint"], run)

    def tensors() -> Any:
        return [t.sum().item() for t in load_model(run / "model.safetensors").network.state_dict().values()]

    def images() -> Any:
        return check(data).to_dict()["faults"], open_dataset(data, "val").load(0).image.sum().item()

    path, read = {
        "weights": (run / "model.safetensors", tensors),
        "checkpoint": (find_checkpoints(run)[-1], lambda: load_checkpoint(find_checkpoints(run)[-1])["iteration"]),
        "record": (run / "record.json", lambda: strip(read_record(run / "record.json"))),
        "predictions": (tmp_path / "p/panoptic.json", evaluate),
        "image": (data / "val/val000.png", images),
        "panoptic PNG": (data / "annotations/panoptic_val/val000.png", images),
        "truth on resume": (json_file(data), resume),
    }[kind]
    whole, expected = path.read_bytes(), read()
    for number in range(campaign.times(6, 100)):
        flipped = flip(path, rng)
        try:
            harmless = read() == expected
        except (ValueError, RuntimeError, OSError, Warning) as error:
            harmless = None
            named = "\n" not in str(error)
            line.promised += named
            if not named:
                line.failures.append(f"{flipped}: {error}")
        if harmless:
            line.harmless += 1
        elif harmless is not None:
            line.failures.append(f"flip {number}, {flipped}: not noticed")
        path.write_bytes(whole)
    settle(line)


def strip(record: dict[str, Any]) -> dict[str, Any]:
    """The record without a key that a flipped bit in the name of the checksum created."""
    return {
        key: value for key, value in record.items() if (key.isascii() and len(key) != len("sha256")) or key == "config"
    }


# --- odd and illegal data -----------------------------------------------------

NAMES = st.text("ab ü木-._'é", min_size=1, max_size=12).filter(
    lambda name: name.strip(" .") == name and name.strip(".")
)
IDS = st.integers(1, 2**24 - 1)


@st.composite
def folders(draw: st.DrawFn) -> dict[str, Any]:
    """The content of an odd but legal data folder; see `write`."""
    kinds = draw(st.lists(st.booleans(), min_size=1, max_size=4))
    ids = draw(st.lists(st.integers(0, 2**31 - 1), min_size=len(kinds), max_size=len(kinds), unique=True))
    names = draw(st.lists(st.text(min_size=1, max_size=8), min_size=len(kinds), max_size=len(kinds), unique=True))
    splits = {}
    for split in ("train", "val"):
        count = draw(st.integers(1, 3))
        images = []
        for name in draw(st.lists(NAMES, min_size=count, max_size=count, unique_by=str.casefold)):
            size = draw(st.tuples(st.integers(1, 40), st.integers(1, 40)))
            found = draw(
                st.lists(st.tuples(IDS, st.sampled_from(ids), st.booleans()), max_size=4, unique_by=lambda s: s[0])
            )
            folder = draw(st.sampled_from(["", "deep/", "more deep/ü/"]))
            images.append({"name": folder + name, "size": size, "segments": found})
        splits[split] = images
    strings = draw(st.booleans())
    return {
        "classes": [
            {"id": i, "name": name.encode(errors="replace").decode(), "isthing": int(kind)}
            for i, name, kind in zip(ids, names, kinds, strict=True)
        ],
        "splits": splits,
        "strings": strings,
        "seed": draw(st.integers(0, 2**16)),
    }


def write(root: Path, plan: dict[str, Any]) -> Path:
    """Each segment is a few random runs of pixels, at least one pixel; other pixels are void."""
    rng = np.random.default_rng(plan["seed"])
    (root / "annotations").mkdir(parents=True)
    for split, entries in plan["splits"].items():
        images, annotations = [], []
        for number, entry in enumerate(entries):
            height, width = entry["size"]
            flat = np.zeros(height * width, np.int32)
            for id_, _, _ in entry["segments"]:
                start_ = int(rng.integers(flat.size))
                flat[start_ : start_ + 1 + int(rng.integers(flat.size)) * int(rng.integers(2))] = id_
            infos = [
                {"id": id_, "category_id": category, "iscrowd": int(crowd)}
                for id_, category, crowd in entry["segments"]
                if (flat == id_).any()
            ]
            image_id = f"picture {number}" if plan["strings"] else 10**9 * number + 7
            write_png(root / split / f"{entry['name']}.png", rng.integers(0, 256, (height, width, 3)).astype(np.uint8))
            write_png(
                root / f"annotations/panoptic_{split}/{entry['name']}.png", encode_ids(flat.reshape(height, width))
            )
            images.append({"id": image_id, "file_name": f"{entry['name']}.png", "height": height, "width": width})
            annotations.append({"image_id": image_id, "file_name": f"{entry['name']}.png", "segments_info": infos})
        save(root, split, {"images": images, "annotations": annotations, "categories": plan["classes"]})
    return root


def quietly(count: int) -> settings:
    slow = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture]
    return settings(
        max_examples=count,
        deadline=None,
        suppress_health_check=slow,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
    )


def test_odd_but_legal_data(campaign: Campaign, tmp_path: Path):
    line = campaign.line("odd but legal data through check, two steps of training, evaluation and prediction")
    made = iter(range(10**6))

    @quietly(campaign.times(4, 60))
    @given(folders(), st.sampled_from(SYSTEMS))
    def goes_through(plan: dict[str, Any], system: str) -> None:
        root = tmp_path / str(next(made))
        data = write(root / "data", plan)
        try:
            report = check(data)
            assert report.ok, str(report)
            record = train(micro(system, iterations=2), data=data, out=root / "run")
            assert record["status"] == "finished"
            model = load_model(root / "run/model.safetensors")
            for picture in open_dataset(data, "val").records:
                assert predict(model, picture.image).ids.shape == (picture.height, picture.width)
            truth = json_file(data)
            assert evaluate_files(truth, truth)["images"] == len(plan["splits"]["val"])
            line.promised += 1
        except Exception as error:
            line.failures.append(f"{system}, {plan}: {type(error).__name__}: {error}")
        shutil.rmtree(root)

    goes_through()
    settle(line)


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-30])


ILLEGAL: dict[str, Any] = {
    "image missing": lambda root: (root / "val/val000.png").unlink(),
    "image cut off": lambda root: _cut(root / "val/val001.png"),
    "training image cut off": lambda root: _cut(root / "train/train001.png"),
    "map missing": lambda root: (root / "annotations/panoptic_train/train000.png").unlink(),
    "map cut off": lambda root: _cut(root / "annotations/panoptic_val/val000.png"),
    "map of 16 bits": lambda root: write_png(
        root / "annotations/panoptic_val/val000.png", np.full((64, 96), 300, np.uint16)
    ),
    "map of another size": lambda root: write_png(
        root / "annotations/panoptic_val/val000.png", np.zeros((64, 95, 3), np.uint8)
    ),
    "map with unknown ids": lambda root: write_png(
        root / "annotations/panoptic_val/val000.png", np.full((64, 96, 3), 9, np.uint8)
    ),
    "JSON cut off": lambda root: _cut(json_file(root)),
    "JSON is a list": lambda root: json_file(root).write_text("[]"),
    "no JSON": lambda root: json_file(root, "train").unlink(),
    "no classes": lambda root: edit(root, lambda content: content["categories"].clear()),
    "no images": lambda root: edit(root, lambda content: [content[k].clear() for k in ("images", "annotations")]),
    "an id of 0": lambda root: edit(root, lambda content: segments(content)[0].update(id=0)),
    "an id twice": lambda root: edit(root, lambda content: segments(content)[0].update(id=segments(content)[1]["id"])),
    "an id above 24 bits": lambda root: edit(root, lambda content: segments(content)[0].update(id=2**24)),
    "an unknown class": lambda root: edit(root, lambda content: segments(content)[0].update(category_id=5)),
    "a class twice": lambda root: edit(root, lambda content: content["categories"].append(content["categories"][0])),
    "isthing missing": lambda root: edit(root, lambda content: content["categories"][0].pop("isthing")),
    "a size of 0": lambda root: edit(root, lambda content: content["images"][0].update(width=0)),
    "a wrong size": lambda root: edit(root, lambda content: content["images"][0].update(width=97), "val"),
    "a path out of the folder": lambda root: edit(root, lambda c: c["images"][0].update(file_name="../x.png")),
    "an area that is no number": lambda root: edit(root, lambda content: segments(content)[0].update(area="much")),
    "an area that is wrong": lambda root: edit(root, lambda content: segments(content)[0].update(area=1), "val"),
    "other classes in val": lambda root: edit(root, lambda content: content["categories"][1].update(name="x"), "val"),
    "an annotation of no image": lambda root: edit(root, lambda content: content["annotations"][0].update(image_id=99)),
    "no folder": shutil.rmtree,
    "a file for a folder": lambda root: (shutil.rmtree(root), root.write_text("data")),
}


def main_in_process(*arguments: object) -> int:
    before, sys.argv = sys.argv, ["spinet", *map(str, arguments)]
    try:
        main()
    except SystemExit as stop:
        return int(stop.code or 0)
    finally:
        sys.argv = before
    return 0


def test_illegal_data(campaign: Campaign, ready: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    line = campaign.line(f"illegal data of {len(ILLEGAL)} kinds to `train`, `sweep`, `data check` and `evaluate`")
    kinds = list(ILLEGAL) if campaign.long else list(ILLEGAL)[::3]
    for kind in kinds:
        data = build(tmp_path / "data")
        ILLEGAL[kind](data)
        weights = ["--weights", ready[1] / "model.safetensors"]
        for command in (
            ["train", "--data", data, "--out", tmp_path / "out", *FLAGS],
            ["sweep", "--data", data, "--out", tmp_path / "out", "--groups", "table4"],
            ["data", "check", data, "--workers", 1],
            ["evaluate", "--data", data, *weights, "--json", tmp_path / "out"],
        ):
            if command[0] == "evaluate" and ("train" in kind or kind in TRAIN_ALONE):
                continue  # not read by the evaluation
            code = main_in_process(*command)
            said = [
                text for text in capsys.readouterr().err.replace("\r", "\n").splitlines() if text.startswith("error")
            ]
            told = len(said) == 1 if command[0] != "data" else True  # a check prints its report
            if code and told and not (tmp_path / "out").exists():
                line.promised += 1
            else:
                line.failures.append(f"{kind}, {command[0]}: status {code}, {said}")
        shutil.rmtree(tmp_path / "out", ignore_errors=True)
        shutil.rmtree(data) if data.is_dir() else data.unlink(missing_ok=True)
    settle(line)


TRAIN_ALONE = {"map missing", "no JSON", "an area that is wrong", "other classes in val"}
"""Faults that the evaluation of weights does not read, or accepts like the official code."""
