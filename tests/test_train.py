"""Training: resume, several processes, accumulation and error messages."""

from __future__ import annotations

import csv
import hashlib
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from spinet.config import PRESETS, TINY, Config, TrainConfig, with_system
from spinet.data import open_dataset
from spinet.data.transforms import collate
from spinet.records import read_record
from spinet.synthcity import generate
from spinet.systems import build_model
from spinet.training.checkpoint import CheckpointError, TrainError, find_checkpoints, load_checkpoint, save_checkpoint
from spinet.training.loop import train
from spinet.training.preflight import check_schedule
from spinet.training.run import Run
from spinet.training.step import learning_rate, make_optimizer
from spinet.weights import WeightsError, heads_file, initialise, load_model, load_objective

MICRO = replace(
    TINY,
    model=replace(TINY.model, fpn_channels=16, filter_channels=16, feature_channels=16, head_convs=1),
    input=replace(TINY.input, crop=(64, 128), scale=(0.8, 1.2), workers=0),
    train=replace(
        TINY.train,
        iterations=4,
        batch_size=4,
        images_per_device=4,
        reference_batch=4,
        precision="fp32",
        checkpoint_every=2,
        warmup=2,
    ),
)
FLAGS = """--preset tiny --model.fpn-channels 16 --model.filter-channels 16 --model.feature-channels 16
--model.head-convs 1 --input.crop 64 128 --input.scale 0.8 1.2 --input.workers 1 --train.batch-size 4
--train.images-per-device 4 --train.reference-batch 4 --train.precision fp32 --train.warmup 2
--train.checkpoint-every 2""".split()  # the same as MICRO, for the command line


@pytest.fixture(scope="module")
def city(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("city")
    generate(root, num_train=6, num_val=2, size=(64, 128), progress=False)
    return root


def with_training(config: Config, **values: object) -> Config:
    return replace(config, train=replace(config.train, **values))


def losses(out: Path) -> list[dict[str, float]]:
    with (out / "log.csv").open() as file:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]


def spinet(*arguments: str, processes: int = 1) -> list[str]:
    run = [sys.executable, "-m", "spinet.cli"]
    if processes > 1:
        run = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
        run += ["-m", "spinet.cli"]
    return [*run, *arguments]


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


def test_killed_and_resumed_equals_uninterrupted_bit_for_bit(city: Path, tmp_path: Path):
    command = spinet("train", "--data", str(city), *FLAGS, "--train.iterations", "6")
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    process = subprocess.Popen([*command, "--out", str(broken)], env=environment())
    deadline = time.time() + 300
    while not find_checkpoints(broken) and time.time() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert find_checkpoints(broken), "no checkpoint before the kill"
    assert not (broken / "model.safetensors").exists()
    assert read_record(broken / "record.json")["status"] == "running"
    subprocess.run([*command, "--out", str(broken), "--resume"], env=environment(), check=True)
    subprocess.run([*command, "--out", str(whole)], env=environment(), check=True)
    assert (broken / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    untimed = [[{k: v for k, v in row.items() if k != "seconds"} for row in losses(out)] for out in (broken, whole)]
    assert untimed[0] == untimed[1]
    assert read_record(broken / "record.json")["status"] == "finished"


def test_two_processes_with_half_the_batch_give_the_same_losses(city: Path, tmp_path: Path):
    arguments = ["train", "--data", str(city), *FLAGS, "--train.iterations", "4"]
    for processes in (1, 2):
        command = spinet(*arguments, "--out", str(tmp_path / str(processes)), processes=processes)
        subprocess.run(command, env=environment(), check=True)
    one, two = (losses(tmp_path / str(processes)) for processes in (1, 2))
    assert len(one) == len(two) == 4
    for a, b in zip(one, two, strict=True):
        for name in a.keys() - {"seconds"}:
            assert b[name] == pytest.approx(a[name], rel=1e-5, abs=1e-5), name
    assert read_record(tmp_path / "2" / "record.json")["device"]["processes"] == 2


def test_accumulated_gradients_equal_one_batch(city: Path, tmp_path: Path):
    for images in (4, 1):
        train(with_training(MICRO, images_per_device=images, iterations=3), data=city, out=tmp_path / str(images))
    for a, b in zip(losses(tmp_path / "4"), losses(tmp_path / "1"), strict=True):
        assert b["total"] == pytest.approx(a["total"], rel=1e-5)
        assert b["gradient_norm"] == pytest.approx(a["gradient_norm"], rel=1e-4)


def test_training_changes_the_weights_and_lowers_the_loss(city: Path, tmp_path: Path):
    record = train(with_training(MICRO, iterations=25, checkpoint_every=100), data=city, out=tmp_path)
    rows = losses(tmp_path)
    assert sum(row["total"] for row in rows[-5:]) < 0.9 * sum(row["total"] for row in rows[:5])
    assert record["status"] == "finished"
    assert record["iterations"] == 25
    assert 0 <= record["metrics"]["PQ"] <= 100
    weights = load_file(tmp_path / "model.safetensors")
    model = load_model(tmp_path / "model.safetensors")
    for name, tensor in model.network.state_dict().items():
        assert torch.equal(tensor, weights[name])


def test_snapshots_are_the_weights_after_their_iterations(city: Path, tmp_path: Path):
    train(with_training(MICRO, iterations=3, snapshots=(0, 2, 3)), data=city, out=tmp_path / "a")
    train(with_training(MICRO, iterations=3, snapshots=()), data=city, out=tmp_path / "b")
    assert not (tmp_path / "b" / "snapshots").exists()
    folders = sorted((tmp_path / "a" / "snapshots").iterdir())
    assert [folder.name for folder in folders] == ["0000000", "0000002", "0000003"]
    start, second, last = (load_file(folder / "model.safetensors") for folder in folders)
    end = load_file(tmp_path / "b" / "model.safetensors")  # snapshots change nothing
    assert all(torch.equal(last[name], end[name]) for name in end)
    for before, after in ((start, second), (second, last)):
        assert any(not torch.equal(before[name], after[name]) for name in end)
    assert load_objective(folders[1] / "auxiliary.safetensors").inter is not None


def test_no_snapshot_is_missing_if_a_run_is_killed_at_its_checkpoint(city: Path, tmp_path: Path, monkeypatch):
    config = with_training(MICRO, iterations=4, checkpoint_every=2, snapshots=(2,))
    saved = Run.save

    def killed(run, done):
        saved(run, done)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Run, "save", killed)
        with pytest.raises(KeyboardInterrupt):
            train(config, data=city, out=tmp_path)
    train(config, data=city, out=tmp_path, resume=True)
    folder = tmp_path / "snapshots" / "0000002"
    assert {path.name for path in folder.iterdir()} == {"model.safetensors", "auxiliary.safetensors"}


def test_a_crowd_of_nothing_trains(city: Path, tmp_path: Path):
    """An image without things, or without any segment, gives finite losses and gradients."""
    config = replace(MICRO, input=replace(MICRO.input, crop=(32, 32), scale=(4.0, 4.0)))
    train(with_training(config, iterations=6), data=city, out=tmp_path)
    assert len(losses(tmp_path)) == 6


def test_bf16_and_tensorboard(city: Path, tmp_path: Path):
    train(with_training(MICRO, precision="bf16", log="tensorboard", iterations=2), data=city, out=tmp_path)
    assert list(tmp_path.glob("events.out.*"))


def test_non_finite_loss_stops_with_a_clear_error(city: Path, tmp_path: Path):
    config = with_training(MICRO, learning_rate=1e30, warmup=0, iterations=4, optimizer="sgd", clip_norm=1e30)
    with pytest.raises(TrainError, match=r"iteration \d: loss is not finite .*learning-rate"):
        train(config, data=city, out=tmp_path)


def test_a_second_run_does_not_overwrite_the_first(city: Path, tmp_path: Path):
    train(MICRO, data=city, out=tmp_path)
    before = (tmp_path / "model.safetensors").read_bytes()
    with pytest.raises(TrainError, match="add --resume, or choose another --out"):
        train(MICRO, data=city, out=tmp_path)
    with pytest.raises(CheckpointError, match=r"other settings: train\.seed was 0, is 1"):
        train(with_training(MICRO, seed=1), data=city, out=tmp_path, resume=True)
    with pytest.raises(CheckpointError, match=r"no iteration is left.*train\.learning_rate was 0\.001, is 0\.5"):
        train(with_training(MICRO, learning_rate=0.5), data=city, out=tmp_path, resume=True)
    assert (tmp_path / "model.safetensors").read_bytes() == before


def test_damaged_checkpoint_is_noticed_and_the_older_one_serves(city: Path, tmp_path: Path):
    train(MICRO, data=city, out=tmp_path)
    newest = find_checkpoints(tmp_path)[-1]
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 1
    newest.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"damaged.*continue from checkpoint_0000002\.pt"):
        train(MICRO, data=city, out=tmp_path, resume=True)
    newest.unlink()
    before = load_file(tmp_path / "model.safetensors")
    train(MICRO, data=city, out=tmp_path, resume=True)
    for name, tensor in load_file(tmp_path / "model.safetensors").items():
        assert torch.equal(tensor, before[name])


def test_checkpoints_are_pruned_and_checked(tmp_path: Path):
    for iteration in range(4):
        save_checkpoint(tmp_path, iteration, {"iteration": iteration, "weight": torch.ones(2)})
    assert [path.name for path in find_checkpoints(tmp_path)] == ["checkpoint_0000002.pt", "checkpoint_0000003.pt"]
    assert load_checkpoint(find_checkpoints(tmp_path)[-1])["iteration"] == 3


def test_both_auxiliary_tasks_teach_both_features_of_the_separate_variant(city: Path):
    config = replace(MICRO, model=replace(MICRO.model, separate=True))
    samples = [open_dataset(city, "train")[index] for index in range(2)]
    batch = collate(samples, seeds=[0, 1])
    model = build_model(config, open_dataset(city, "train").categories, weights_follow=True)
    training = model.for_training()
    targets = model.target_builder()(batch.segment_maps, batch.labels, batch.crowd, batch.seeds)
    losses = training(batch, targets, targets.counts())
    assert targets.counts().triplets > 0
    ends = [model.network.panoptic_feature.deconvolution.weight, model.network.stuff_feature.deconvolution.weight]
    for task in ("contour", "triplet"):
        for gradient in torch.autograd.grad(losses[task], ends, retain_graph=True):
            assert gradient.abs().max() > 0, task


def test_batch_that_cannot_be_shared(city: Path, tmp_path: Path):
    with pytest.raises(TrainError, match="batch_size 4 cannot be shared by 1 processes × 3 images"):
        train(with_training(MICRO, images_per_device=3), data=city, out=tmp_path)


def test_learning_rate_schedules():
    paper = TrainConfig()
    assert learning_rate(0, paper) == pytest.approx(1e-5)
    assert learning_rate(1000, paper) == 0.01
    assert learning_rate(79_999, paper) == 0.01
    assert learning_rate(80_000, paper) == pytest.approx(1e-3)  # §5.2: decreases at 80k and 90k
    assert learning_rate(90_000, paper) == pytest.approx(1e-4)
    assert learning_rate(2000, replace(paper, batch_size=8)) == pytest.approx(0.0025)  # linear scaling
    for schedule in ("poly", "cosine"):
        rates = [learning_rate(i, replace(paper, schedule=schedule, warmup=0)) for i in range(0, 95_000, 5000)]
        assert all(a > b > 0 for a, b in pairwise(rates))


def test_a_warm_up_that_takes_the_whole_run_is_named(caplog):
    check_schedule(TrainConfig(iterations=200, warmup=100))
    assert not caplog.records
    check_schedule(TrainConfig(iterations=200, warmup=1000))
    assert "train.warmup is 1000, but train.iterations is only 200" in caplog.text


def test_fine_tuning_starts_from_every_tensor_that_fits(city: Path, tmp_path: Path):
    first = train(with_training(MICRO, iterations=1), data=city, out=tmp_path / "first")
    assert first["init"] is None
    weights = tmp_path / "first" / "model.safetensors"
    trained = load_file(weights)
    heads = load_file(heads_file(weights))
    assert heads
    still = with_training(MICRO, iterations=1, learning_rate=0.0)
    record = train(still, data=city, out=tmp_path / "same", init=weights)
    assert record["init"]["file"] == "model.safetensors"
    assert record["init"]["sha256"] == hashlib.sha256(weights.read_bytes()).hexdigest()
    kept = len(trained) + len(heads)
    assert (record["init"]["kept"], record["init"]["left_out"], record["init"]["fresh"]) == (kept, [], [])
    assert record["backbone_norm"] == "frozen"
    for name, tensor in load_file(tmp_path / "same" / "model.safetensors").items():
        assert torch.equal(tensor, trained[name]), name
    for name, tensor in load_file(tmp_path / "same" / "auxiliary.safetensors").items():
        assert torch.equal(tensor, heads[name]), name

    heads_file(weights).write_bytes(weights.read_bytes())
    with pytest.raises(WeightsError, match=r"auxiliary.safetensors: a network, not the auxiliary heads"):
        train(still, data=city, out=tmp_path / "twice", init=weights)
    heads_file(weights).unlink()
    record = train(still, data=city, out=tmp_path / "without", init=weights)
    assert (record["init"]["heads_sha256"], record["init"]["fresh"]) == (None, sorted(heads))

    model = load_model(weights)
    fewer = replace(model.categories, things=model.categories.things[:3])
    other = build_model(MICRO, fewer, weights_follow=True)
    found = initialise(other, weights)
    classes = {f"filter_sampling.class_head.1.{kind}" for kind in ("weight", "bias")}
    stuff = {f"single_shot_convolution.{kind}" for kind in ("weight", "bias")}
    assert set(found.left_out) == set(found.fresh) == classes | stuff
    assert "left out, since name or shape differ: filter_sampling.class_head.1.bias" in str(found)
    for name, tensor in other.network.state_dict().items():
        assert (name in classes | stuff) or torch.equal(tensor, trained[name]), name


def test_a_file_that_nothing_can_start_from_is_named(city: Path, tmp_path: Path):
    config = with_training(MICRO, iterations=1)
    train(config, data=city, out=tmp_path / "run")
    with pytest.raises(WeightsError, match=r"auxiliary heads; give the model.safetensors in the same folder"):
        train(config, data=city, out=tmp_path / "a", init=tmp_path / "run" / "auxiliary.safetensors")
    with pytest.raises(WeightsError, match=r"nothing.safetensors: no such file"):
        train(config, data=city, out=tmp_path / "b", init=tmp_path / "nothing.safetensors")
    with pytest.raises(WeightsError, match=r"weights of spinet, not of panoptic_fpn; give --system spinet"):
        train(
            with_system(config, "panoptic_fpn", PRESETS["tiny"].data),
            data=city,
            out=tmp_path / "c",
            init=tmp_path / "run" / "model.safetensors",
        )


def test_parts_of_the_network_have_rates_of_their_own(city: Path):
    model = build_model(MICRO, open_dataset(city, "train").categories)
    training = model.for_training()
    optimizer = make_optimizer(training, replace(MICRO.train, backbone_rate=0.1, fc_rate=0.5))
    names = {id(parameter): name for name, parameter in training.named_parameters()}
    factors = {names[id(p)]: group["factor"] for group in optimizer.param_groups for p in group["params"]}
    assert set(factors) == {name for name, p in training.named_parameters() if p.requires_grad}
    assert {factor for name, factor in factors.items() if ".backbone." in name} == {0.1}
    assert {factor for name, factor in factors.items() if ".filter_sampling.fc." in name} == {0.5}
    rest = {
        factor for name, factor in factors.items() if ".backbone." not in name and ".filter_sampling.fc." not in name
    }
    assert rest == {1.0}
