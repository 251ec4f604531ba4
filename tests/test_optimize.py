"""§5.3 The optimised network gives the same outputs as the plain one, for every system."""

from copy import deepcopy
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import nn
from torch._inductor.exc import InvalidCxxCompiler

from spinet import load_model, optimize_for_inference, predict
from spinet.config import PRESETS, TINY, with_system
from spinet.config.baselines import BASELINES
from spinet.evaluation.panoptic_quality import PanopticQuality
from spinet.inference.predict import run_network
from spinet.model.backbone import Backbone, make_deformable
from spinet.model.filter_sampling import Locations
from spinet.model.spinet import SPINet
from spinet.speed.accounting import macs_of
from spinet.speed.batch_norm import fold_batch_norm
from spinet.speed.shortcuts import DeconvolvingSingleShot, EnlargedAfter, take_shortcuts
from spinet.speed.winograd import ALGORITHMS, Algorithm, WinogradConv2d, fitting
from spinet.synthcity.mosaic import CATEGORIES, mosaic
from spinet.system import Model
from spinet.systems import build_model
from spinet.weights import freeze


def with_statistics(module: nn.Module, seed: int = 0) -> nn.Module:
    """Batch norms that are not the identity, like trained ones."""
    random = torch.Generator().manual_seed(seed)
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d):
            for tensor, low, high in (
                (norm.running_mean, -0.2, 0.2),
                (norm.running_var, 0.5, 2.0),
                (norm.weight.data, 0.5, 1.5),
                (norm.bias.data, -0.2, 0.2),
            ):
                tensor.copy_(low + (high - low) * torch.rand(tensor.shape, generator=random))
    return module


RESNET = {"backbone": "resnet10t", "pretrained": False, "freeze_stages": 0}


def batch_normed(system: str, **changes: object) -> Model:
    config = with_system(replace(TINY, model=replace(TINY.model, **(RESNET | changes))), system, PRESETS["tiny"].data)
    config = replace(config, model=replace(config.model, norm="batch", fpn_channels=32))
    config = replace(config, inference=replace(config.inference, precision="fp32"))
    torch.manual_seed(0)
    model = build_model(config, CATEGORIES)
    freeze(with_statistics(model.network))
    return model


def image(seed: int = 0, size: tuple[int, int] = (128, 256)) -> torch.Tensor:
    return torch.randint(0, 256, (1, 3, *size), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def tensors(outputs: object) -> list[torch.Tensor]:
    """The floating-point tensors in a system's outputs, except detections, which are random without training."""
    if isinstance(outputs, torch.Tensor):
        return [outputs] if outputs.is_floating_point() else []
    if isinstance(outputs, dict | list):
        parts = outputs.values() if isinstance(outputs, dict) else outputs
    else:
        parts = [part for name, part in vars(outputs).items() if name not in ("detections", "grid")]
    return [tensor for part in parts for tensor in tensors(part)]


def outputs(network: nn.Module, picture: torch.Tensor) -> object:
    """Final outputs: for SPINet, classes and the logits of filters sampled at many locations, also at corners."""
    features = network(picture)
    if not isinstance(network, SPINet):
        return features
    sizes = [level.shape[-2:] for level in features.class_logits]
    places = [
        (level, y, x)
        for level, (height, width) in enumerate(sizes)
        for y in (0, height // 2, height - 1)
        for x in (0, width // 3, width - 1)
    ]
    logits = network.single_shot(features, 0, Locations(*torch.tensor(places).unbind(1)))
    return [*features.class_logits, *logits]


@pytest.mark.parametrize("backbone", ["resnet10t", "tf_efficientnet_lite0"])
@pytest.mark.parametrize("system", ["spinet", *BASELINES])
def test_every_system_computes_the_same_without_its_batch_norms(system: str, backbone: str):
    plain = batch_normed(system, backbone=backbone)
    before = sum(isinstance(module, nn.BatchNorm2d) for module in plain.network.modules())
    fast = optimize_for_inference(plain, precision="fp32")
    assert before >= 10
    assert not any(isinstance(module, nn.BatchNorm2d) for module in fast.network.modules())
    assert sum(isinstance(module, nn.BatchNorm2d) for module in plain.network.modules()) == before  # a copy
    with torch.inference_mode():
        ours, theirs = (tensors(outputs(model.network, image())) for model in (fast, plain))
    assert len(ours) == len(theirs) > 0
    for a, b in zip(ours, theirs, strict=True):
        assert b.std() > 0 or b.numel() < 2
        torch.testing.assert_close(a, b, atol=1e-4 * float(b.abs().max()), rtol=0)


def test_deformable_convolutions_are_folded_too():
    backbone = Backbone(name="resnet10t", norm="batch", pretrained=False).eval()
    make_deformable(backbone.body.get_submodule("layer4"))
    with_statistics(backbone)
    for module in backbone.modules():
        if hasattr(module, "offset"):
            nn.init.normal_(module.offset.weight, std=0.01)
    network = nn.Sequential(backbone).eval()
    network.divisor, network.mean = 32, torch.zeros(1)
    x = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        before = backbone(x)[-1]
        folded = fold_batch_norm(network)
        after = backbone(x)[-1]
    assert any("layer4" in name for name in folded)
    torch.testing.assert_close(after, before, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("changes", "late"),
    [
        ({}, True),
        ({"coordinate_skip": True}, True),
        ({"detail_skip": True}, True),
        ({"detail_skip": True, "coordinate_skip": False}, True),
        ({"coordinate_skip": True, "kernel": 1}, False),
        ({"separate": True}, False),
        ({"feature_relu": True}, False),
        ({"kernel": 1}, False),
    ],
)
def test_shortcuts_are_taken_where_they_give_the_same(changes: dict, late: bool):
    config = replace(TINY, model=replace(TINY.model, fpn_channels=32, feature_channels=48, **changes))
    torch.manual_seed(0)
    plain = build_model(config, CATEGORIES).network
    freeze(plain)
    nn.init.normal_(plain.panoptic_feature.deconvolution.bias)  # the border must be zero, not this bias
    if config.model.detail_skip:
        nn.init.normal_(plain.panoptic_feature.detail.weight)  # starts at zero
    nn.init.normal_(plain.filter_sampling.filter_head[-1].bias)
    short = deepcopy(plain)
    take_shortcuts(short)
    assert isinstance(short.single_shot_convolution, DeconvolvingSingleShot) == late
    with torch.inference_mode():
        ours, theirs = (outputs(network, image(size=(96, 160))) for network in (short, plain))
    for a, b in zip(ours, theirs, strict=True):
        assert b.std() > 0
        torch.testing.assert_close(a, b, atol=1e-5 * float(b.abs().max()), rtol=0)


@pytest.mark.parametrize("factor", [2, 4, 16])
def test_a_map_may_be_enlarged_after_its_convolution(factor: int):
    torch.manual_seed(0)
    convolution = nn.Conv2d(6, 5, 3, padding=1, bias=False)
    small = torch.randn(2, 6, 3, 5)
    with torch.inference_mode():
        expected = convolution(nn.Upsample(scale_factor=factor, mode="bilinear")(small))
        ours = EnlargedAfter(convolution, factor)
        torch.testing.assert_close(ours(small), expected, atol=1e-5, rtol=0)
        assert macs_of(lambda: ours(small)) * factor**2 == macs_of(
            lambda: convolution(expected[:, :1].expand(-1, 6, -1, -1))
        )


def test_shortcuts_multiply_less():
    plain = batch_normed("spinet", coordinate_skip=False).network
    short = deepcopy(plain)
    take_shortcuts(short)
    with torch.inference_mode():
        fewer, more = (macs_of(partial(outputs, network, image())) for network in (short, plain))
    assert 0 < fewer < 0.93 * more


def test_a_norm_whose_convolution_serves_another_stays():
    class Shared(nn.Module):
        divisor = 8

        def __init__(self):
            super().__init__()
            self.register_buffer("mean", torch.zeros(1))
            self.conv, self.first, self.second = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.BatchNorm2d(4)

        def forward(self, x):
            return self.first(self.conv(x)) + self.second(self.conv(x))

    network = with_statistics(Shared()).eval()
    assert fold_batch_norm(network) == []
    assert isinstance(network.first, nn.BatchNorm2d)


def reaching(least_channels: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Winograd convolution from `channels` channels on."""
    wider = tuple(replace(algorithm, least_channels=least_channels) for algorithm in ALGORITHMS)
    monkeypatch.setattr("spinet.speed.winograd.ALGORITHMS", wider)


@pytest.mark.parametrize("least_channels", [64, 1])
def test_the_shipped_model_says_the_same(least_channels: int, monkeypatch: pytest.MonkeyPatch):
    reaching(least_channels, monkeypatch)
    plain = load_model()
    plain = replace(plain, config=replace(plain.config, inference=replace(plain.config.inference, precision="fp32")))
    fast = optimize_for_inference(plain)
    filtered = sum(isinstance(module, WinogradConv2d) for module in fast.network.modules())
    assert filtered == {64: 13, 1: 14}[least_channels]  # all 3×3 layers of stride 1 but the backbone's depthwise ones
    qualities = {"plain": PanopticQuality(CATEGORIES), "fast": PanopticQuality(CATEGORIES)}
    shared = union = 0
    for things in (5, 10):
        sample = mosaic(things, (256, 512))
        truth = [
            {"id": n, "category_id": CATEGORIES.all[label].id} for n, label in enumerate(sample.labels.tolist(), 1)
        ]
        picture = sample.pixels
        theirs, ours = (predict(model, picture, instances=True) for model in (plain, fast))
        for quality, prediction in zip(qualities.values(), (theirs, ours), strict=True):
            quality.update(sample.segment_map.numpy(), truth, prediction.ids, prediction.segments)
        assert len(ours.instances) == len(theirs.instances) > 5
        for a, b in zip(ours.instances, theirs.instances, strict=True):
            shared, union = shared + (a["mask"] & b["mask"]).sum(), union + (a["mask"] | b["mask"]).sum()
    assert shared >= 0.999 * union
    pq = {name: 100 * quality.result()["All"]["pq"] for name, quality in qualities.items()}
    assert pq["plain"] > 5
    assert pq["fast"] == pytest.approx(pq["plain"], abs=0.05)


@pytest.mark.parametrize("algorithm", [replace(algorithm, dtype=torch.float32) for algorithm in ALGORITHMS])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("size", [(1, 1), (4, 8), (7, 5), (37, 70)])
def test_minimal_filtering_is_the_same_convolution(
    size: tuple[int, int], bias: bool, algorithm: Algorithm, monkeypatch: pytest.MonkeyPatch
):
    torch.manual_seed(0)
    plain = nn.Conv2d(5, 3, 3, padding=1, bias=bias).requires_grad_(False)
    fast = WinogradConv2d(plain, algorithm)
    for tiles in (1000, 40, 1):  # all at once, a number that does not divide, row by row
        monkeypatch.setattr("spinet.speed.winograd.TILES", tiles)
        for order in (torch.contiguous_format, torch.channels_last):
            x = torch.randn(2, 5, *size).to(memory_format=order)
            expected = plain.double()(x.double())
            torch.testing.assert_close(fast(x).double(), expected, atol=3e-5, rtol=0)
            plain.float()


def test_minimal_filtering_takes_the_place_of_what_fits(monkeypatch: pytest.MonkeyPatch):
    reduced = ALGORITHMS[1]
    monkeypatch.setattr("torch.cpu._is_amx_tile_supported", lambda: False)
    wide = reduced.least_channels
    for algorithm in ALGORITHMS:
        least = algorithm.least_channels
        assert fitting(nn.Conv2d(least, least, 3, padding=1), algorithm.dtype) == algorithm
        assert fitting(nn.Conv2d(least - 1, least, 3, padding=1), algorithm.dtype) is None
        for other in (
            nn.Conv2d(wide, wide, 3),
            nn.Conv2d(wide, wide, 3, padding=1, stride=2),
            nn.Conv2d(wide, wide, 3, padding=2, dilation=2),
            nn.Conv2d(wide, wide, 3, padding=1, groups=2),
            nn.Conv2d(wide, wide, 3, padding=1, padding_mode="circular"),
            nn.Conv2d(wide, wide, 5, padding=1),
            nn.ConvTranspose2d(wide, wide, 3, padding=1),
        ):
            assert fitting(other, algorithm.dtype) is None
    config = replace(TINY, model=replace(TINY.model, **RESNET, fpn_channels=wide, feature_channels=wide))
    model = build_model(replace(config, inference=replace(config.inference, precision="fp32")), CATEGORIES)
    freeze(model.network)

    def count(**options: object) -> int:
        fast = optimize_for_inference(model, **options)
        return sum(isinstance(module, WinogradConv2d) for module in fast.network.modules())

    assert count() >= count(precision="bf16") >= 15
    assert count(winograd=False) == 0
    monkeypatch.setattr("torch.cpu._is_amx_tile_supported", lambda: True)
    assert count() >= 15
    assert count(precision="bf16") == 0


def test_minimal_filtering_in_bf16_rounds_little_more_than_bf16_does():
    torch.manual_seed(0)
    plain = nn.Conv2d(256, 32, 3, padding=1).requires_grad_(False)
    fast = WinogradConv2d(plain, ALGORITHMS[1])
    x = torch.randn(1, 256, 30, 40).relu().bfloat16()
    expected = deepcopy(plain).double()(x.double())
    made = fast(x)
    assert made.dtype == torch.bfloat16
    ours, theirs = ((y.double() - expected).std() for y in (made, plain.bfloat16()(x)))
    assert 0 < ours < 2.5 * theirs


def test_minimal_filtering_in_bf16_changes_logits_as_little_as_bf16_does(monkeypatch: pytest.MonkeyPatch):
    reaching(32, monkeypatch)
    monkeypatch.setattr("torch.cpu._is_amx_tile_supported", lambda: False)
    exact = batch_normed("spinet")
    fast = optimize_for_inference(exact, precision="bf16")
    plain = replace(exact, config=replace(exact.config, inference=replace(exact.config.inference, precision="bf16")))
    assert sum(isinstance(module, WinogradConv2d) for module in fast.network.modules()) >= 15
    picture = image()[0].permute(1, 2, 0).numpy()
    ours, theirs, expected = (
        run_network(model, picture).features.class_logits[0].double() for model in (fast, plain, exact)
    )
    assert (theirs - expected).std() < 0.1 * expected.std()
    assert (ours - expected).std() < 2 * (theirs - expected).std()


def test_bf16_weights_are_rounded_once_and_to_the_same_values():
    plain = batch_normed("spinet")
    plain = replace(plain, config=replace(plain.config, inference=replace(plain.config.inference, precision="bf16")))
    fast = optimize_for_inference(plain)
    assert {module.weight.dtype for module in fast.network.modules() if isinstance(module, nn.Conv2d)} == {
        torch.bfloat16
    }
    assert fast.network.filter_sampling.fc.weight.dtype == torch.float32
    picture = image()[0].permute(1, 2, 0).numpy()
    ours, theirs = (run_network(model, picture).features.class_logits[0] for model in (fast, plain))
    assert ours.dtype == theirs.dtype == torch.bfloat16
    assert float((ours - theirs).abs().max()) < 0.05 * float(theirs.abs().max())


def test_compile_without_a_compiler_says_so(monkeypatch: pytest.MonkeyPatch):
    def none():
        raise InvalidCxxCompiler

    monkeypatch.setattr("torch._inductor.cpp_builder.get_cpp_compiler", none)
    with pytest.raises(RuntimeError, match="C\\+\\+ compiler"):
        optimize_for_inference(batch_normed("spinet"), compile=True)
