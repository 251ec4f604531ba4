"""Training with several gloo processes: decisions, shared state, and the same results as with one process."""

from __future__ import annotations

import csv
import json
import os
import socket
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from accelerate import Accelerator
from conftest import NUM_STUFF, NUM_THINGS
from safetensors.torch import load_file
from timm.layers import BatchNormAct2d
from torch import nn

import spinet.model.backbone as backbones
import spinet.training.run as training_module
from spinet.config import PRESETS, TINY, Config, with_system
from spinet.data import open_dataset
from spinet.data.segments import Categories, Category, Sample
from spinet.data.transforms import collate
from spinet.machine import exact_float32, tf32
from spinet.model.backbone import Backbone
from spinet.records import read_record
from spinet.synthcity import generate
from spinet.systems import SPINetTraining, build_model
from spinet.training.checkpoint import CheckpointError, TrainError
from spinet.training.loop import train
from spinet.training.processes import build_together, decide, join, synchronise_norms
from spinet.training.step import Prepare

MICRO = replace(
    TINY,
    model=replace(
        TINY.model,
        backbone="resnet10t",
        norm="group",
        pretrained=False,
        freeze_stages=0,
        fpn_channels=16,
        filter_channels=16,
        feature_channels=16,
        head_convs=1,
    ),
    input=replace(TINY.input, crop=(64, 128), scale=(0.8, 1.2), workers=0),
    train=replace(TINY.train, iterations=4, precision="fp32", checkpoint_every=2, warmup=2),
)
CPU = torch.device("cpu")
CATEGORIES = Categories.of([Category(10 + i, f"class {i}", i < NUM_THINGS) for i in range(NUM_THINGS + NUM_STUFF)])


def changed(config: Config, **sections: dict[str, Any]) -> Config:
    return replace(config, **{name: replace(getattr(config, name), **values) for name, values in sections.items()})


@pytest.fixture(scope="module")
def city(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("city")
    generate(root, num_train=6, num_val=2, size=(64, 128), progress=False)
    return root


def _one(rank: int, count: int, port: int, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "CUDA_VISIBLE_DEVICES": ""}
    function(*arguments)


def in_processes(count: int, function: Callable[..., Any], *arguments: Any) -> None:
    """Runs a function in several processes, with the environment of torchrun."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mp.start_processes(_one, (count, port, function, arguments), nprocs=count, start_method="spawn")


def losses(out: Path) -> list[dict[str, float]]:
    with (out / "log.csv").open() as file:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]


def run(config: Config, city: Path, out: Path, **options: Any) -> None:
    train(config, data=city, out=out, **options)
    assert not dist.is_initialized()  # the run ends the process group that it starts


# --- results ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"objective": {"inter_class_contour": 0.0, "intra_class_triplet": 0.0, "multi_class_dice": False}},
        # most crops have no things; the others have so few that a process's share is less than one
        {"input": {"crop": (32, 32), "scale": (4.0, 4.0)}},
    ],
    ids=["all losses", "losses off", "images without instances"],
)
def test_processes_and_accumulation_change_no_step(city: Path, tmp_path: Path, changes: dict[str, Any]):
    config = changed(MICRO, **changes, train={"iterations": 2})
    run(config, city, tmp_path / "1")
    for processes, images in ((4, 1),) if changes else ((2, 1), (4, 1)):
        split = changed(config, train={"images_per_device": images})
        in_processes(processes, run, split, city, tmp_path / str(processes))
        assert read_record(tmp_path / str(processes) / "record.json")["device"]["processes"] == processes
        for a, b in zip(losses(tmp_path / "1"), losses(tmp_path / str(processes)), strict=True):
            for name in a.keys() - {"seconds"}:
                assert b[name] == pytest.approx(a[name], rel=1e-4, abs=1e-5), (processes, name)


def test_a_run_goes_on_with_another_number_of_processes(city: Path, tmp_path: Path):
    # AdamW divides a gradient by its size, so pure rounding errors become a whole step; SGD does not
    config = changed(MICRO, train={"images_per_device": 1, "optimizer": "sgd", "learning_rate": 0.01})
    run(config, city, tmp_path / "whole")
    halted = tmp_path / "halted"
    in_processes(4, run, config, city, halted)
    for name in ("checkpoint_0000004.pt", "checkpoint_0000004.sha256", "model.safetensors"):
        (halted / name).unlink()
    in_processes(2, partial_run, config, city, halted)
    whole, resumed = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "halted"))
    for name, tensor in whole.items():
        torch.testing.assert_close(resumed[name], tensor, rtol=1e-4, atol=1e-6)
    assert len(losses(halted)) == 4


def partial_run(config: Config, city: Path, out: Path) -> None:
    run(config, city, out, resume=True)


# --- decisions --------------------------------------------------------------------------------------------------------


def decisions(out: Path) -> None:
    accelerator = join("fp32", CPU)
    rank = accelerator.process_index
    assert decide(accelerator, lambda: f"rank {rank}") == "rank 0"
    with pytest.raises(CheckpointError, match="of rank 0"):
        decide(accelerator, lambda: fail(f"of rank {rank}"))
    (out / str(rank)).touch()


def fail(message: str) -> None:
    raise CheckpointError(message)


def test_rank_0_decides_and_what_it_raises_is_raised_everywhere(tmp_path: Path):
    in_processes(2, decisions, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"0", "1"}
    assert decide(Accelerator(cpu=True), lambda: 3) == 3


def second_finds_another_folder(config: Config, city: Path, out: Path) -> None:
    """Rank 1 has no checkpoint, as on a machine without the shared folder."""
    if os.environ["RANK"] == "1":
        out = out.with_name("elsewhere")
    run(config, city, out, resume=True)


def test_processes_agree_on_where_to_start(city: Path, tmp_path: Path):
    out = tmp_path / "run"
    run(MICRO, city, out)
    before = load_file(out / "model.safetensors")
    for name in ("checkpoint_0000004.pt", "checkpoint_0000004.sha256"):
        (out / name).unlink()
    in_processes(2, second_finds_another_folder, changed(MICRO, train={"images_per_device": 4}), city, out)
    for name, tensor in load_file(out / "model.safetensors").items():
        torch.testing.assert_close(tensor, before[name], rtol=1e-3, atol=1e-4)
    assert not (tmp_path / "elsewhere").exists()


def weights_of_each(config: Config, city: Path, out: Path, who: str) -> None:
    """Pretrained weights are available only on some ranks; then two steps of data-parallel training in float32."""
    rank = int(os.environ["RANK"])

    def load(name: str, body: nn.Module, options: dict[str, Any]) -> str:
        if str(rank) not in who:
            return "none"
        for norm in body.modules():
            if isinstance(norm, nn.BatchNorm2d):
                norm.running_mean.fill_(0.25)
        return "a hub"

    backbones._load_imagenet = load
    accelerator = join("fp32", CPU)
    dataset = open_dataset(city, "train")
    torch.manual_seed(rank)
    model = build_together(accelerator, config, dataset.categories)
    module = model.for_training().train()
    if "0" in who:  # otherwise norms train, and synchronised norms need a GPU
        synchronise_norms(module)
        assert not any(isinstance(part, nn.SyncBatchNorm) for part in module.modules())
    optimizer = torch.optim.SGD([p for p in module.parameters() if p.requires_grad], lr=0.01)
    wrapped, _ = accelerator.prepare(module, optimizer)
    weights = torch.cat([t.double().flatten() for t in wrapped.module.state_dict().values()])
    means = [m.running_mean for m in wrapped.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    backbone = model.network.backbone
    facts = {
        "sum": float(weights.sum()),
        "weights": backbone.weights,
        "norm": backbone.norm,
        "config": model.config == config,
        "mean": sorted({round(float(value), 6) for mean in means for value in mean}),
        "training": sum(m.training for m in wrapped.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)),
    }
    (out / f"{rank}.json").write_text(json.dumps(facts))
    dist.destroy_process_group()


@pytest.mark.parametrize(("who", "norm"), [("0", "frozen"), ("01", "frozen"), ("1", "batch")])
def test_processes_agree_on_pretrained_weights(city: Path, tmp_path: Path, who: str, norm: str):
    config = changed(MICRO, model={"norm": "frozen", "pretrained": True})
    in_processes(2, weights_of_each, config, city, tmp_path, who)
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    assert first == second
    assert first["norm"] == norm
    assert first["config"]
    assert first["weights"] == ("a hub" if norm == "frozen" else "none")
    assert first["mean"] == ([0.25] if norm == "frozen" else [0.0])
    assert (first["training"] == 0) == (norm == "frozen")


# --- norms ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def as_if_pretrained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backbones, "_load_imagenet", lambda name, body, options: "a hub")


def norms(module: nn.Module) -> list[nn.Module]:
    return [part for part in module.modules() if isinstance(part, nn.modules.batchnorm._BatchNorm)]


@pytest.mark.parametrize("name", ["resnet10t", "regnety_004"])
def test_frozen_norms_stay_frozen_when_norms_are_synchronised(as_if_pretrained: None, name: str):
    backbone = nn.ModuleDict({"backbone": Backbone(name=name, norm="frozen")})
    synchronise_norms(backbone)
    backbone.train()
    assert norms(backbone)
    assert not any(norm.training or isinstance(norm, nn.SyncBatchNorm) for norm in norms(backbone))


@pytest.mark.parametrize("name", ["resnet10t", "regnety_004"])
def test_norms_that_train_are_synchronised_and_keep_their_activation(as_if_pretrained: None, name: str):
    backbone = Backbone(name=name, norm="batch", freeze_stages=1).eval()
    torch.manual_seed(0)
    image = torch.randn(1, 3, 64, 64)
    for norm in norms(backbone):
        nn.init.normal_(norm.weight, mean=1.0, std=0.3)
        norm.running_mean.normal_(std=0.3)
    before, still = backbone(image), [norm for norm in norms(backbone) if not norm.weight.requires_grad]
    had_activations = any(isinstance(norm, BatchNormAct2d) for norm in norms(backbone))
    assert had_activations == (name == "regnety_004")
    synchronise_norms(backbone)
    after = backbone(image)
    for a, b in zip(before, after, strict=True):
        torch.testing.assert_close(a, b)
    kept = [norm for norm in norms(backbone) if not isinstance(norm, nn.SyncBatchNorm)]
    assert kept == still  # the stem, which does not train
    assert kept
    assert len(norms(backbone)) > len(kept)


# --- gradients --------------------------------------------------------------------------------------------------------

OFF = [
    {},
    {"classes": 0.0, "stuff": 0.0, "things": 0.0},
    {"inter_class_contour": 0.0},
    {"intra_class_triplet": 0.0},
    {"inter_class_contour": 0.0, "intra_class_triplet": 0.0, "multi_class_dice": False},
]


@pytest.mark.parametrize("things", [0, 4], ids=["no instance", "instances"])
@pytest.mark.parametrize("objective", OFF, ids=lambda changes: ", ".join(changes) or "all")
@pytest.mark.parametrize("separate", [False, True], ids=["one feature", "two features"])
def test_no_parameter_is_left_without_a_gradient(scene: Any, things: int, objective: dict[str, Any], separate: bool):
    """Otherwise data-parallel training stops at the next step."""
    config = changed(MICRO, objective=objective, model={"separate": separate, "reach": 32})
    assert without_gradient(config, scene, things) == []


@pytest.mark.parametrize("things", [0, 4], ids=["no instance", "instances"])
@pytest.mark.parametrize("system", ["panoptic_fpn", "panoptic_deeplab", "upsnet", "condinst"])
def test_no_parameter_of_a_baseline_is_left_without_a_gradient(scene: Any, things: int, system: str):
    assert without_gradient(with_system(MICRO, system, PRESETS["tiny"].data), scene, things) == []


def without_gradient(config: Config, scene: Any, things: int) -> list[str]:
    torch.manual_seed(0)
    samples = []
    for seed in (1, 2):
        segment_map, labels, crowd = scene(seed, things=things)
        samples.append(Sample(seed, torch.zeros(3, *segment_map.shape, dtype=torch.uint8), segment_map, labels, crowd))
    model = build_model(config, CATEGORIES)
    training = model.for_training().train()
    part = Prepare(model.target_builder())(collate(samples, [1, 2]))
    training(part.batch, part.targets, part.counts)["total"].backward()
    return [name for name, p in training.named_parameters() if p.requires_grad and p.grad is None]


# --- fp16 and float32 -------------------------------------------------------------------------------------------------


@pytest.fixture
def half(monkeypatch: pytest.MonkeyPatch) -> None:
    """fp16's rules on a CPU: a scaler that skips steps that overflow."""

    def joined(precision: str, device: torch.device) -> Accelerator:
        accelerator = join("fp32", CPU)
        accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**16)
        accelerator.unscale_gradients = lambda optimizer=None: [
            accelerator.scaler.unscale_(o.optimizer) for o in accelerator._optimizers
        ]
        return accelerator

    monkeypatch.setattr(training_module, "join", joined)
    monkeypatch.setattr(training_module, "resolve", lambda precision, device: "fp16")


def overflowing(monkeypatch: pytest.MonkeyPatch, iterations: range) -> None:
    forward, count = SPINetTraining.forward, iter(range(10**6))

    def overflow(self: SPINetTraining, *arguments: Any) -> dict[str, torch.Tensor]:
        terms = forward(self, *arguments)
        if next(count) in iterations:
            terms = {name: term * float("inf") for name, term in terms.items()}
        return terms

    monkeypatch.setattr(SPINetTraining, "forward", overflow)


def test_a_step_that_overflows_in_fp16_is_skipped(half: None, monkeypatch: pytest.MonkeyPatch, city: Path, tmp_path):
    overflowing(monkeypatch, range(1, 2))
    run(MICRO, city, tmp_path)
    rows = losses(tmp_path)
    assert [row["total"] < float("inf") for row in rows] == [True, False, True, True]
    assert all(tensor.isfinite().all() for tensor in load_file(tmp_path / "model.safetensors").values())


def test_one_that_always_overflows_stops(half: None, monkeypatch: pytest.MonkeyPatch, city: Path, tmp_path: Path):
    overflowing(monkeypatch, range(3, 10**6))
    config = changed(MICRO, train={"iterations": 40, "checkpoint_every": 100})
    with pytest.raises(TrainError, match="iteration 19: loss is not finite"):
        run(config, city, tmp_path)


def test_float32_is_float32():
    before = tf32()
    with exact_float32():
        assert tf32() == {"convolutions": False, "matrix_products": False}
    assert tf32() == before


def test_the_record_says_how_float32_was_computed_and_where(city: Path, tmp_path: Path):
    run(changed(MICRO, train={"iterations": 1}), city, tmp_path, device="cpu")
    record = read_record(tmp_path / "record.json")
    assert record["tf32"] == {"convolutions": False, "matrix_products": False}
    assert "CPU" in json.dumps(record["device"])
