"""On a real GPU: the same results as on the CPU, few waits, training that continues on another device.

Skipped without a GPU. SPINET_DEVICE=cpu runs the tests that work on a CPU, to check the tests.
"""

from __future__ import annotations

import csv
import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import nn

from spinet.config import PRESETS, TINY, Config
from spinet.config.baselines import BASELINES
from spinet.data.transforms import collate
from spinet.inference.predict import postprocess, predict, run_network
from spinet.machine import exact_float32, synchronise
from spinet.model.layers import group_norm_in_order
from spinet.speed.optimize import optimize_for_inference
from spinet.speed.staging import stage
from spinet.speed.yardstick import Yardstick
from spinet.synthcity import generate
from spinet.synthcity.mosaic import CATEGORIES, mosaic
from spinet.system import Model
from spinet.systems import build_model
from spinet.training.loop import train
from spinet.training.step import Prepare, make_optimizer
from spinet.weights import freeze, load_model

NAME = os.environ.get("SPINET_DEVICE") or ("cuda" if torch.cuda.is_available() else "")
pytestmark = pytest.mark.skipif(not NAME, reason="needs a GPU")
DEVICE = torch.device(NAME or "cpu")
ON_GPU = DEVICE.type == "cuda"

NETWORK = replace(TINY.model, backbone="resnet10t", norm="group", pretrained=False, freeze_stages=0)
SMALL = replace(TINY, model=NETWORK, train=replace(TINY.train, precision="fp32"))


def waits(function: Callable[[], Any]) -> int:
    """Number of times that the host waits for the device."""
    if not ON_GPU:
        function()
        return 0
    torch.cuda.set_sync_debug_mode("warn")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        function()
    torch.cuda.set_sync_debug_mode("default")
    return sum("synchroniz" in str(warning.message) for warning in caught)


def shipped(precision: Any, device: torch.device, **rules: Any) -> Model:
    model = load_model(device=device)
    inference = replace(model.config.inference, precision=precision, **rules)
    return replace(model, config=replace(model.config, inference=inference))


def untrained(config: Config = SMALL, device: torch.device = DEVICE, **rules: Any) -> Model:
    torch.manual_seed(0)
    model = build_model(replace(config, inference=replace(config.inference, **rules)), CATEGORIES)
    freeze(model.network.to(device))
    return model


def pixels(things: int, size: tuple[int, int] = (256, 512)) -> Any:
    return mosaic(things, size, seed=0).pixels


# --- the same results -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("connected", [False, True])
@pytest.mark.parametrize("optimized", [False, True])
def test_the_shipped_model_says_what_it_says_on_a_cpu(connected: bool, optimized: bool):
    image = pixels(8)
    here, there = (shipped("fp32", device, connected=connected) for device in (torch.device("cpu"), DEVICE))
    expected = predict(here, image, instances=True)
    there = optimize_for_inference(there) if optimized else there
    found = predict(there, image, instances=True)
    assert (found.ids == expected.ids).mean() > 0.995
    assert (found.semantic == expected.semantic).mean() > 0.995
    assert abs(len(found.segments) - len(expected.segments)) <= 1
    assert abs(len(found.instances) - len(expected.instances)) <= 2
    reduced = optimize_for_inference(shipped("bf16", DEVICE, connected=connected))
    assert (predict(reduced, image).semantic == expected.semantic).mean() > 0.9


@pytest.mark.parametrize(
    "rules",
    [
        {"threshold": 0.9999, "ap_threshold": 0.9999},  # no detections
        {"duplicates": "none"},  # a hundred masks, all over the image, most of which are dropped
        {"duplicates": "mask", "connected": True},
        {"fill_threshold": 0.3},
        {"agreement": 0.2, "contested": "mask", "fill_threshold": 0.1},
    ],
    ids=str,
)
def test_an_untrained_network_is_read_as_on_a_cpu(rules: dict[str, Any]):
    rules = {"precision": "fp32", "threshold": 0.0, "ap_threshold": 0.0} | rules
    here, there = untrained(device=torch.device("cpu"), **rules), untrained(**rules)
    image = pixels(4)
    expected, found = predict(here, image, instances=True), predict(there, image, instances=True)
    assert (found.ids == expected.ids).mean() > 0.98
    assert abs(len(found.instances) - len(expected.instances)) <= 2


@pytest.mark.parametrize("system", ["spinet", *BASELINES])
def test_every_system_finds_what_is_there_and_learns(system: str):
    config = replace(PRESETS["tiny"], config=SMALL).with_system(system)
    sample = mosaic(6, (256, 512), seed=0)
    model = optimize_for_inference(untrained(config, precision="bf16"))
    with stage(model, sample):
        prediction = predict(model, pixels(6), instances=True)
    assert sum(segment["isthing"] for segment in prediction.segments) == 6
    fresh = build_model(config, CATEGORIES)
    training = fresh.for_training().to(DEVICE).train()
    part = Prepare(fresh.target_builder())(collate([sample, sample], [1, 2]))
    part = (part.pin_memory() if ON_GPU else part).to(DEVICE)
    optimizer = make_optimizer(training, replace(config.train, learning_rate=1e-3))
    totals = []
    for _ in range(8):
        with torch.autocast(DEVICE.type, torch.bfloat16):
            total = training(part.batch, part.targets, part.counts)["total"]
        total.backward()
        optimizer.step()
        optimizer.zero_grad()
        totals.append(total.item())
    assert totals[-1] < totals[0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_group_norm_in_order(dtype: torch.dtype):
    torch.manual_seed(0)
    x = torch.randn(2, 64, 40, 56, device=DEVICE).to(dtype).to(memory_format=torch.channels_last).requires_grad_()
    weight, bias = (torch.randn(64, device=DEVICE, requires_grad=True) for _ in range(2))
    with exact_float32():
        result = group_norm_in_order(x, 8, weight, bias, 1e-5)
        result.float().square().sum().backward()
    assert (result.dtype, result.is_contiguous(memory_format=torch.channels_last)) == (dtype, True)
    exact = [t.detach().double().requires_grad_() for t in (x, weight, bias)]
    expected = F.group_norm(exact[0], 8, exact[1], exact[2], 1e-5)
    expected.square().sum().backward()
    tolerance = 1e-4 if dtype == torch.float32 else 0.05
    torch.testing.assert_close(result.double(), expected, rtol=tolerance, atol=tolerance)
    for tensor, truth in zip((x, weight, bias), exact, strict=True):
        scale = float(truth.grad.abs().max())
        torch.testing.assert_close(tensor.grad.double(), truth.grad, rtol=0, atol=tolerance * scale)


# --- waits and rates --------------------------------------------------------------------------------------------------


def test_an_image_costs_three_waits():
    model, sample = optimize_for_inference(untrained(precision="bf16")), mosaic(12, (256, 512), seed=0)
    with stage(model, sample):
        predict(model, pixels(12))
        encoded = run_network(model, pixels(12))
        # the debug mode detects implicit waits; each half also has one explicit wait
        assert waits(lambda: run_network(model, pixels(12))) == 0
        assert waits(lambda: postprocess(model, encoded)) <= 1
        assert waits(lambda: postprocess(model, encoded, instances=True)) <= 1


def test_the_yardstick_measures():
    stick = Yardstick((256, 512), precision=torch.bfloat16, device=DEVICE)
    for _ in range(3):
        stick.take()
    rates = stick.rates()
    assert 1e8 < rates["macs_per_s"] < 2e15
    assert 1e8 < rates["bytes_per_s"] < 2e13
    if ON_GPU:
        assert stick.x.nbytes > torch.cuda.get_device_properties(DEVICE).L2_cache_size


# --- training ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def city(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("city")
    generate(root, num_train=6, num_val=2, size=(64, 128), progress=False)
    return root


def micro(**training: Any) -> Config:
    values = {"iterations": 4, "checkpoint_every": 2, "warmup": 2} | training
    return replace(
        SMALL,
        model=replace(NETWORK, fpn_channels=16, filter_channels=16, feature_channels=16, head_convs=1),
        input=replace(SMALL.input, crop=(64, 128), scale=(0.8, 1.2), workers=2),
        train=replace(SMALL.train, **values),
    )


def losses(out: Path) -> list[dict[str, float]]:
    with (out / "log.csv").open() as file:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]


def test_training_computes_what_a_cpu_computes_and_goes_on_from_its_checkpoint(city: Path, tmp_path: Path):
    for folder, device in (("here", "cpu"), ("there", NAME)):
        train(micro(), data=city, out=tmp_path / folder, device=device)
    for a, b in zip(losses(tmp_path / "here"), losses(tmp_path / "there"), strict=True):
        assert b["total"] == pytest.approx(a["total"], rel=1e-2)
    moved = tmp_path / "here"
    for path in [*moved.glob("checkpoint_0000004.*"), *moved.glob("*.safetensors")]:
        path.unlink()
    train(micro(), data=city, out=moved, resume=True, device=NAME)
    assert len(losses(moved)) == 4
    assert all(tensor.isfinite().all() for tensor in load_file(moved / "model.safetensors").values())


@pytest.mark.skipif(not ON_GPU, reason="needs a GPU")
@pytest.mark.parametrize("changes", [{"precision": "fp16"}, {"precision": "bf16"}, {"images_per_device": 1}], ids=str)
def test_training_in_other_ways(city: Path, tmp_path: Path, changes: dict[str, Any]):
    train(micro(**changes), data=city, out=tmp_path)
    assert all(tensor.isfinite().all() for tensor in load_file(tmp_path / "model.safetensors").values())


def test_one_process_under_torchrun(city: Path, tmp_path: Path):
    flags = """--preset tiny --model.backbone resnet10t --model.norm group --model.no-pretrained --model.freeze-stages 0
    --input.crop 64 128 --train.iterations 2 --train.batch-size 2 --train.images-per-device 2""".split()
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=1", "-m", "spinet.cli"]
    command += ["train", "--data", str(city), "--out", str(tmp_path / "run"), "--device", NAME, *flags]
    subprocess.run(command, check=True)
    assert (tmp_path / "run" / "model.safetensors").exists()


def test_steps_follow_each_other_without_a_wait(city: Path):
    """Waits of a step itself; the loader and the reading of its losses are in between."""
    model = build_model(SMALL, CATEGORIES)
    training = model.for_training().to(DEVICE, memory_format=torch.channels_last).train()
    part = Prepare(model.target_builder())(collate([mosaic(6, (256, 512), seed=0)], [1]))
    part = (part.pin_memory() if ON_GPU else part).to(DEVICE)
    optimizer = make_optimizer(training, SMALL.train)

    def step() -> None:
        with torch.autocast(DEVICE.type, torch.bfloat16):
            training(part.batch, part.targets, part.counts)["total"].backward()
        nn.utils.clip_grad_norm_(training.parameters(), 10.0)
        optimizer.step()
        optimizer.zero_grad()

    step()
    synchronise(DEVICE)
    assert waits(step) == 0
