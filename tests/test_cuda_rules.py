"""Rules and waits of CUDA on pretended devices: only one device is used, and the host rarely waits for it."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pretended import MixedDevices, Pretended, PretendedCuda, to_cuda
from pretended import cuda as cuda  # a fixture
from torch import Tensor, nn

import spinet.inference.merge_at_once as merge_at_once
import spinet.inference.postprocess as inference
import spinet.speed.optimize as optimize
from spinet.config import PRESETS, TINY, Config
from spinet.config.baselines import BASELINES
from spinet.data.transforms import collate
from spinet.inference.predict import postprocess, run_network
from spinet.model.layers import GroupNorm, group_norm_in_order
from spinet.speed.optimize import optimize_for_inference
from spinet.speed.shortcuts import EnlargedAfter
from spinet.speed.staging import stage
from spinet.speed.yardstick import RUNS, Yardstick
from spinet.synthcity.mosaic import CATEGORIES, mosaic
from spinet.system import Model
from spinet.systems import build_model
from spinet.training.memory import Alive, training_memory
from spinet.training.step import Prepare, make_optimizer, take_step
from spinet.weights import freeze

Cuda = Callable[[], Any]
NETWORK = replace(
    TINY.model, backbone="resnet10t", norm="group", pretrained=False, freeze_stages=0, coordinate_skip=False
)
SMALL = replace(TINY, model=NETWORK)
SIZE = (128, 256)


def untrained(config: Config = SMALL, **rules: Any) -> Model:
    torch.manual_seed(0)
    model = build_model(replace(config, inference=replace(config.inference, **rules)), CATEGORIES)
    freeze(model.network)
    return model


def on_cuda(model: Model, cuda: Cuda, *, optimized: bool = False) -> Model:
    """A copy on the pretended device."""
    there = build_model(model.config, model.categories)
    there.network.load_state_dict(model.network.state_dict())
    freeze(there.network)
    with cuda():
        to_cuda(there.network)
        return optimize_for_inference(there) if optimized else there


def pixels(things: int, seed: int = 0) -> np.ndarray:
    return mosaic(things, SIZE, seed=seed).pixels


# --- pretended CUDA ---------------------------------------------------------------------------------------------------


def test_mixed_devices_are_refused_and_waits_are_counted(cuda: Cuda):
    with cuda() as device:
        there, here = Pretended(torch.arange(6.0)), torch.arange(6.0)
        assert (there.device.type, there.is_cuda) == ("cuda", True)
        with pytest.raises(MixedDevices, match=r"add of a tensor on CUDA and of one on the CPU, \[\(6,\)\]"):
            there + here
        assert (there + here.cuda(non_blocking=True)).to("cpu", non_blocking=True).tolist() == (2 * here).tolist()
        assert not device.waits
        assert float(there.sum()) == 15
        assert there[there > 2].tolist() == [3, 4, 5]
        assert device.waits.total() == 3  # a number, a size that depends on values, a download
        with torch.autocast("cuda", torch.bfloat16):
            assert (there[None] @ there[:, None]).dtype == torch.bfloat16
    with pytest.raises(RuntimeError, match="outside of PretendedCuda"):
        there + 1


# --- inference --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("optimized", [False, True], ids=["as built", "optimised"])
def test_an_image_costs_three_waits(cuda: Cuda, optimized: bool):
    """One for the network, one for the number of filters, one for all results; launches do not grow with things."""
    model = untrained(precision="bf16")
    there = on_cuda(model, cuda, optimized=optimized)
    counts = []
    for things in (2, 12):
        sample = mosaic(things, (256, 512), seed=0)
        with cuda(), stage(there, sample):
            with cuda() as network:
                encoded = run_network(there, sample.pixels)
            with cuda() as post:
                prediction = postprocess(there, encoded)
            with cuda() as more:
                all_found = postprocess(there, encoded, instances=True)
        assert sum(segment["isthing"] for segment in prediction.segments) == things
        assert len(all_found.instances) >= things
        assert network.waits.total() == 1, network
        assert post.waits.total() == 2, post
        assert more.waits.total() == 2, more
        assert prediction.ids.dtype == np.int32
        assert post.downloaded < 2.1 * 256 * 512  # a byte for the segment, one for the label, and little else
        counts.append(post.launches.total())
    assert max(counts) < 450
    assert max(counts) - min(counts) < 20


@pytest.mark.parametrize(
    "rules",
    [
        {},
        {"duplicates": "none"},
        {"duplicates": "mask"},
        {"fill_threshold": 0.3},
        {"agreement": 0.2, "contested": "mask", "fill_threshold": 0.1},
        {"connected": True},
        {"threshold": 0.99, "ap_threshold": 0.99},
    ],
    ids=str,
)
@pytest.mark.parametrize("kind", ["stuff+thing", "all"])
@pytest.mark.parametrize("reach", [None, 24])
def test_the_map_is_that_of_the_cpu(
    cuda: Cuda, monkeypatch: pytest.MonkeyPatch, rules: dict[str, Any], kind: Any, reach: int | None
):
    """Outputs of an untrained network whose masks overlap in many ways."""
    config = replace(
        SMALL, objective=replace(SMALL.objective, semantic_classes=kind), model=replace(NETWORK, reach=reach)
    )
    model = untrained(config, **{"precision": "fp32", "threshold": 0.0, "ap_threshold": 0.0, "top": 30} | rules)
    there, image = on_cuda(model, cuda), pixels(4)
    expected = postprocess(model, run_network(model, image), instances=True)
    monkeypatch.setattr(inference, "ROUNDS", 1)  # so few that the merge must repeat
    monkeypatch.setattr(merge_at_once, "AT_ONCE", 4 * image.shape[0] * image.shape[1])  # several pieces
    with cuda():
        found = postprocess(there, run_network(there, image), instances=True)
    assert (found.ids == expected.ids).mean() > 0.999
    assert (found.semantic == expected.semantic).mean() > 0.999
    assert len(found.segments) == len(expected.segments)
    assert len(found.instances) == len(expected.instances)
    for a, b in zip(found.segments, expected.segments, strict=True):
        assert (a["id"], a["category_id"], a["isthing"]) == (b["id"], b["category_id"], b["isthing"])
        assert a["area"] == pytest.approx(b["area"], abs=20)
        assert a.get("score", 0) == pytest.approx(b.get("score", 0), abs=1e-4)
    for a, b in zip(found.instances, expected.instances, strict=True):
        assert (a["mask"] == b["mask"]).mean() > 0.999
    if kind == "stuff+thing":
        assert (found.class_map == expected.class_map).mean() > 0.99


@pytest.mark.parametrize("system", BASELINES)
def test_a_baseline_touches_one_device(cuda: Cuda, system: str):
    model = untrained(replace(PRESETS["tiny"], config=SMALL).with_system(system), precision="bf16")
    there = on_cuda(model, cuda, optimized=True)
    sample = mosaic(4, SIZE, seed=0)
    with cuda(), stage(there, sample):
        prediction = postprocess(there, run_network(there, pixels(4)), instances=True)
    assert sum(segment["isthing"] for segment in prediction.segments) == 4


# --- norms, optimised networks ----------------------------------------------------------------------------------------


def test_group_norm_keeps_type_and_order(cuda: Cuda):
    there = on_cuda(untrained(precision="bf16"), cuda, optimized=True)
    norms = sum(isinstance(module, GroupNorm) for module in there.network.modules())
    with cuda() as device:
        run_network(there, pixels(2))
    assert norms > 10
    assert not [name for name in device.types if "group_norm" in name]  # PyTorch's: float32, channels first
    assert device.types["linalg_vector_norm bfloat16"] >= norms
    assert {name for name in device.types if name.startswith("convolution")} == {"convolution bfloat16"}


def test_group_norm_in_order_is_group_norm():
    torch.manual_seed(0)
    x = torch.randn(2, 12, 5, 7, dtype=torch.float64).add(1).to(memory_format=torch.channels_last).requires_grad_()
    weight, bias = (torch.randn(12, dtype=torch.float64, requires_grad=True) for _ in range(2))
    result = group_norm_in_order(x, 4, weight, bias, 1e-5)
    torch.testing.assert_close(result, F.group_norm(x, 4, weight, bias, 1e-5))
    assert result.is_contiguous(memory_format=torch.channels_last)
    assert torch.autograd.gradcheck(
        lambda *inputs: group_norm_in_order(inputs[0], 4, *inputs[1:], 1e-5), (x, weight, bias)
    )
    half, exact = x.detach().bfloat16(), F.group_norm(x.detach().bfloat16().double(), 4, weight, bias, 1e-5)
    rounded = group_norm_in_order(half, 4, weight.float(), bias.float(), 1e-5)
    assert rounded.dtype == torch.bfloat16
    assert (rounded - exact).abs().max() < 4 * (exact.bfloat16() - exact).abs().max()


def test_maps_are_enlarged_before_their_convolution_on_cuda(cuda: Cuda):
    model = untrained()
    for optimized, expected in ((optimize_for_inference(model), True), (on_cuda(model, cuda, optimized=True), False)):
        assert any(isinstance(module, EnlargedAfter) for module in optimized.network.modules()) == expected


def test_compiling_without_a_c_compiler_says_so_on_cuda_too(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setattr(optimize, "which", lambda name: None)
    with pytest.raises(RuntimeError, match="needs a C compiler"):
        optimize.compiled(lambda x: x, torch.device("cuda"))


def test_results_of_a_graph_are_copied(monkeypatch: pytest.MonkeyPatch):
    """A CUDA graph overwrites the results of the previous image."""
    options: dict[str, Any] = {}
    memory = torch.zeros(3)

    def graph(function: Any, **given: Any) -> Any:
        options.update(given["options"])
        return lambda x: memory.copy_(x)

    monkeypatch.setenv("CC", "gcc")
    monkeypatch.setattr(torch, "compile", graph)
    network = optimize.compiled(lambda x: x, torch.device("cuda"))
    first = network(torch.ones(3))
    network(torch.zeros(3))
    assert first.tolist() == [1, 1, 1]
    assert options["triton.cudagraphs"]


def test_the_yardstick_is_longer_than_a_cache_and_a_clock(cuda: Cuda, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(L2_cache_size=2**12))

    class Event:
        def __init__(self, enable_timing: bool): ...

        def record(self) -> None: ...

        def synchronize(self) -> None: ...

        def elapsed_time(self, other: Any) -> float:
            return 100.0

    monkeypatch.setattr(torch.cuda, "Event", Event)
    with cuda() as device:
        stick = Yardstick((8, 16), precision=torch.bfloat16, device=torch.device("cuda"))
        before = device.launches["convolution"]
        stick.take()
    assert device.launches["convolution"] - before == RUNS
    assert stick.x.nbytes >= 4 * 2**12
    assert stick.rates()["macs_per_s"] == pytest.approx(256**2 * 9 * 2 * len(stick.x) * RUNS / 0.1)


# --- training ---------------------------------------------------------------------------------------------------------


class OneGpu:
    """The part of accelerate that `take_step` uses, for one process; gradients are zero without a backward pass."""

    device = torch.device("cuda", 0)

    def __init__(self, module: nn.Module):
        self.module = module

    def backward(self, loss: Tensor) -> None:
        for parameter in self.module.parameters():
            if parameter.requires_grad:
                parameter.grad = torch.zeros_like(parameter)

    def reduce(self, tensor: Tensor, how: str) -> Tensor:
        return tensor

    def clip_grad_norm_(self, parameters: Any, norm: float) -> Tensor:
        return nn.utils.clip_grad_norm_(parameters, norm)


@pytest.mark.parametrize("things", [0, 6])
@pytest.mark.parametrize("system", ["spinet", *BASELINES])
def test_a_step_of_training_waits_for_nothing(cuda: Cuda, system: str, things: int):
    """The baselines may wait; they are only tested for one device."""
    config = replace(PRESETS["tiny"], config=SMALL).with_system(system)
    torch.manual_seed(0)
    model = build_model(config, CATEGORIES)
    samples = [replace(mosaic(things, SIZE, seed=seed), window=torch.tensor([0.0, 0, 256, 128])) for seed in (1, 2)]
    batch = collate(samples, [1, 2])
    part = Prepare(model.target_builder())(batch)
    training = model.for_training().train()
    if system == "spinet":
        with torch.no_grad():
            expected = training(part.batch, part.targets, part.counts, 0.5)
    with cuda():
        to_cuda(training)
        optimizer = make_optimizer(training, config.train)
        assert optimizer.defaults["fused"]
        gpu: Any = OneGpu(training)
        take_step(training, optimizer, [part], gpu, progress=0.5, clip=10.0)
        state = torch.utils._pytree.tree_map_only(Tensor, lambda t: t.cpu(), optimizer.state_dict())
        optimizer.load_state_dict(state)  # as resumed
    with cuda() as device:
        reading = take_step(training, optimizer, [part], gpu, progress=0.5, clip=10.0)
    if system != "spinet":
        return
    assert device.waits.total() == 0, device
    assert device.launches.total() < 1700
    with cuda() as later:
        values = reading.read()
    assert later.waits.total() == 1
    assert later.launches.total() == 0
    for name, value in expected.items():
        assert values[name] == pytest.approx(float(value), rel=2e-3, abs=1e-4), name


def test_every_image_has_as_many_filters_on_cuda(cuda: Cuda, monkeypatch: pytest.MonkeyPatch):
    model = build_model(replace(SMALL, objective=replace(SMALL.objective, samples_per_image=200)), CATEGORIES)
    training = model.for_training().train()
    seen = []
    convolution = model.network.single_shot_convolution
    convolution.register_forward_pre_hook(lambda module, inputs: seen.append(len(inputs[1])))
    samples = [mosaic(things, SIZE, seed=1) for things in (0, 1, 6)]
    part = Prepare(model.target_builder())(collate(samples, [1, 2, 3]))
    assert len({len(image.sample_level) for image in part.targets.images}) == 3
    with cuda():
        to_cuda(training)
        take_step(training, make_optimizer(training, SMALL.train), [part], OneGpu(training), progress=0.0, clip=1.0)  # type: ignore[arg-type]
    assert seen == [200, 200, 200]


# --- memory -----------------------------------------------------------------------------------------------------------


def test_memory_that_is_alive():
    with Alive() as alive:
        a = torch.zeros(1000)
        b = a.view(10, 100)  # the same memory
        c = b + 1
        assert alive.bytes == 8000
        del a, b
        assert alive.bytes == 4000
        del c
    assert (alive.bytes, alive.most) == (0, 8000)


def test_memory_of_training():
    config = replace(SMALL, train=replace(SMALL.train, images_per_device=2, precision="fp32"))
    sizes: dict[str, Any] = {"size": SIZE, "num_classes": (8, 11), "things": 1}
    sizes: dict[str, Any] = {"size": SIZE, "num_classes": (8, 11), "things": 1}
    small = training_memory(config, **sizes)
    model = build_model(config, CATEGORIES)
    parameters = sum(p.nbytes for p in model.network.parameters())
    assert small["weights"] > parameters
    assert small["optimizer"] >= 2 * small["gradients"]  # AdamW
    double = training_memory(replace(config, train=replace(config.train, images_per_device=4)), **sizes)
    fixed = small["weights"] + small["gradients"] + small["optimizer"]
    assert 1.5 < (double["peak"] - fixed) / (small["peak"] - fixed) < 3  # twice the images


def test_the_page_on_training_states_the_memory_of_the_paper_s_presets():
    text = " ".join((Path(__file__).parents[1] / "docs" / "training.md").read_text(encoding="utf-8").split())
    sizes = {"cityscapes_r50": (512, 1024), "coco_r50": (800, 1333)}
    said = re.findall(
        r"`(\w+)` with its (\d) \w+ of (\d+) × (\d+)\D+([\d.]+) GiB(?: in float32)? and ([\d.]+) GiB", text
    )
    assert [name for name, *_ in said] == list(sizes)
    for name, images, height, width, *gigabytes in said:
        config = PRESETS[name].config
        assert (int(images), (int(height), int(width))) == (config.train.images_per_device, sizes[name])
        for precision, number in zip(("fp32", "bf16"), gigabytes, strict=True):
            exact = replace(config, train=replace(config.train, precision=precision))
            peak = training_memory(exact, sizes[name], num_classes=PRESETS[name].data.num_classes)["peak"]
            assert float(number) == pytest.approx(peak / 2**30, abs=0.1)
            assert peak < 12e9  # of 16


def test_counts_can_be_read(cuda: Cuda):
    with cuda() as device:
        Pretended(torch.ones(2)).sum().item()
    assert isinstance(device, PretendedCuda)
    assert str(device).startswith("2 launches, 1 waits (1 × test _local_scalar_dense)")
