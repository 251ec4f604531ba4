"""The systems that the paper compares with: sizes, losses, learning, and each rule compared with a naive version."""

from __future__ import annotations

import itertools
import math
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import NUM_STUFF, NUM_THINGS, draw_scene
from torch.nn import functional as F
from torchvision.models.detection.image_list import ImageList

from spinet.baselines.build import build_baseline
from spinet.baselines.condinst import draw, dynamic_layers
from spinet.baselines.fcos import assign, make_grid
from spinet.baselines.mask_rcnn import Detections, Detector, DetectorOutputs
from spinet.baselines.merge import Placed, merge, paste
from spinet.baselines.panoptic_deeplab import DeepLabOutputs, find_centres, group, heat_map, offsets, vote
from spinet.baselines.system import Baseline, Instance, Segmentation
from spinet.baselines.targets import BaselineTargetBuilder, ImageTruth
from spinet.baselines.upsnet import panoptic_logits, panoptic_truth
from spinet.config import COCO_R50, PRESETS, TINY, Config, ConfigError, InferenceConfig, from_dict, to_dict, with_system
from spinet.config.baselines import BASELINES, CondInstConfig
from spinet.data import Batch, Categories, Category, PanopticDataset, open_dataset
from spinet.data.label_space import IGNORE, LabelSpace
from spinet.data.segments import decode_ids
from spinet.data.transforms import collate
from spinet.evaluation import PanopticQuality, summarize
from spinet.inference import merge as merging
from spinet.inference.candidates import Candidates
from spinet.inference.mask_logits import MaskLogits
from spinet.inference.predict import predict
from spinet.inference.resample import Resampler
from spinet.model.backbone import BackboneError
from spinet.model.filter_sampling import Locations
from spinet.speed.accounting import describe_baseline
from spinet.synthcity import generate
from spinet.system import Model
from spinet.systems import build_model
from spinet.training.checkpoint import CheckpointError
from spinet.training.loop import train
from spinet.training.step import make_optimizer
from spinet.weights import load_model, save_model

SYSTEMS = list(BASELINES)
CATEGORIES = Categories.of([Category(10 + i, f"class {i}", i < NUM_THINGS) for i in range(NUM_THINGS + NUM_STUFF)])
CLASSES = LabelSpace("all", 3, 4)
RULES = InferenceConfig(min_stuff_area=0.02)


def micro(system: str) -> Config:
    """The preset tiny with fewer convolutions; 64 channels are the minimum for groups of two in group norm."""
    scratch = {"backbone": "resnet10t", "norm": "group", "pretrained": False, "freeze_stages": 0}
    return with_system(replace(TINY, model=replace(TINY.model, head_convs=1, **scratch)), system, PRESETS["tiny"].data)


def make_model(system: str) -> Model:
    torch.manual_seed(0)
    return build_model(micro(system), CATEGORIES)


def batch_of(*scenes: dict) -> Batch:
    maps, labels, crowd = zip(*(draw_scene(**scene) for scene in scenes), strict=True)
    shape = (len(maps), 3, *maps[0].shape)
    images = torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    return Batch(images, torch.stack(maps), list(labels), list(crowd), torch.zeros(len(maps), 4), [0] * len(maps), [0])


def losses_of(model: Model, batch: Batch) -> tuple[torch.nn.Module, dict[str, torch.Tensor]]:
    training = model.for_training().train()
    targets = model.target_builder()(batch.segment_maps, batch.labels, batch.crowd, batch.seeds)
    return training, training(batch, targets, targets.counts())


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def truth_of(masks: torch.Tensor, labels: list[int]) -> ImageTruth:
    boxes = [[*(m.nonzero().amin(0).flip(0)), *(m.nonzero().amax(0).flip(0) + 1)] for m in masks]
    known = torch.ones(masks.shape[1:], dtype=torch.bool)
    return ImageTruth(torch.tensor(labels), torch.tensor(boxes).float().view(-1, 4), masks, known)


# --- sizes and configuration ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("system", "bound"), [("panoptic_fpn", 1), ("panoptic_deeplab", 1), ("upsnet", 3)])
def test_parameters_are_the_published_ones(system, bound):
    description = describe_baseline(system)
    assert abs(description["deviation"]) < bound  # percent
    assert round(description["params"] / 1e6, 1) == description["published"]


@pytest.mark.parametrize("system", SYSTEMS)
def test_every_preset_has_the_system_and_its_width(system):
    sizes = {preset: describe_baseline(system, preset)["params"] for preset in PRESETS}
    assert sizes["tiny"] < sizes["small"] < sizes["cityscapes_r50"] < sizes["coco_r50"]  # the last by its classes
    assert "published" not in describe_baseline(system, "tiny")


def test_a_configuration_survives_json_and_names_its_system():
    for system in SYSTEMS:
        config = micro(system)
        assert from_dict(to_dict(config)) == config
        assert to_dict(config)["baseline"]["system"] == system
    old = to_dict(TINY)
    del old["baseline"]  # as before there were baselines
    assert from_dict(old) == TINY
    assert with_system(PRESETS["tiny"].with_system("panoptic_fpn"), "spinet", PRESETS["tiny"].data) == TINY


def test_unknown_systems_and_settings_are_named():
    with pytest.raises(ConfigError, match=r"no system 'resnet'; there are spinet, panoptic_fpn, .*condinst"):
        PRESETS["tiny"].with_system("resnet")
    values = to_dict(micro("upsnet"))
    with pytest.raises(ConfigError, match=r"baseline.*'mask2former'"):
        from_dict(values | {"baseline": {"system": "mask2former"}})
    with pytest.raises(ConfigError, match=r"baseline.*sigma"):
        from_dict(values | {"baseline": values["baseline"] | {"sigma": 3}})
    stuff = replace(micro("upsnet"), objective=COCO_R50.objective)
    with pytest.raises(ConfigError, match=r"semantic_classes is 'stuff\+thing': upsnet needs 'all'"):
        build_baseline(stuff, CATEGORIES)
    config = micro("panoptic_deeplab")
    with pytest.raises(ConfigError, match="dilates the backbone's last stage"):
        build_baseline(replace(config, model=replace(config.model, deformable=True)), CATEGORIES)
    with pytest.raises(BackboneError, match="not a timm model with feature maps at strides 4, 8, 16, 32"):
        build_baseline(replace(config, model=replace(config.model, backbone="vit_tiny_patch16_224")), CATEGORIES)


def test_what_is_small_follows_the_crop():
    config = with_system(
        replace(TINY, input=replace(TINY.input, crop=(128, 256))), "panoptic_deeplab", PRESETS["tiny"].data
    ).baseline
    assert (config.sigma, config.small_area) == (2.0, 256)
    config = PRESETS["cityscapes_r50"].with_system("panoptic_deeplab").baseline
    assert (config.sigma, config.small_area) == (8.0, 4096)


@pytest.mark.parametrize("system", ["panoptic_fpn", "upsnet"])
def test_anchors_and_proposals_follow_the_crop(system):
    """As in the authors' code for their crops and whole images; an image half as high has anchors half as large."""
    for crop, scale, rois in (((512, 1024), 8.0, 512), ((256, 512), 4.0, 128), ((128, 256), 2.0, 64), (None, 8.0, 512)):
        config = with_system(replace(TINY, input=replace(TINY.input, crop=crop)), system, PRESETS["tiny"].data)
        assert (config.baseline.anchor_scale, config.baseline.rois) == (scale, rois)
    network: Any = make_model(system).network
    assert network.roi_heads.fg_bg_sampler.batch_size_per_image == 128
    assert network.rpn.anchor_generator.sizes[0] == (16,)


def test_coco_has_its_own_coefficients():
    upsnet = PRESETS["coco_r50"].with_system("upsnet")
    assert (upsnet.baseline.panoptic, upsnet.objective.semantic_classes) == (0.1, "all")
    assert PRESETS["coco_r50"].with_system("panoptic_fpn").objective.semantic_classes == "stuff+thing"


# --- losses -----------------------------------------------------------------------------------------------------------

BATCHES = {
    "things": ({"seed": 1}, {"seed": 2, "crowd": 1}),
    "odd size": ({"seed": 5, "height": 70, "width": 50},),
    "no thing, nothing": ({"seed": 3, "things": 0}, {"seed": 4, "things": 0, "stuff": 0}),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("system", SYSTEMS)
def test_losses_are_finite_and_reach_every_parameter(system, dtype):
    model = make_model(system)
    for name, parameter in model.network.named_parameters():
        if name.endswith("weight") and not parameter.any():  # norms that start at zero block earlier layers
            torch.nn.init.constant_(parameter, 0.5)
    for kind, scenes in BATCHES.items():
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            training, losses = losses_of(model, batch_of(*scenes))
        assert all(loss.isfinite() for loss in losses.values()), (kind, losses)
        parts = [loss for name, loss in losses.items() if name != "total"]
        torch.testing.assert_close(losses["total"], torch.stack(parts).sum())
        training.zero_grad()
        losses["total"].backward()
        trained = [(name, p) for name, p in training.named_parameters() if p.requires_grad]
        assert len(trained) > 60
        for name, parameter in trained:
            assert parameter.grad is not None, (kind, name)
            assert parameter.grad.isfinite().all(), (kind, name)
            if kind == "things":
                assert parameter.grad.any(), name


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_part_of_a_step_weighs_what_it_holds(system):
    model, batch = make_model(system), batch_of({"seed": 1})
    training = model.for_training().train()
    targets = model.target_builder()(batch.segment_maps, batch.labels, batch.crowd, batch.seeds)
    torch.manual_seed(0)
    whole = training(batch, targets, targets.counts())["total"]
    torch.manual_seed(0)
    half = training(batch, targets, (2.0,))["total"]
    torch.testing.assert_close(half, whole / 2)
    assert all(isinstance(count, float) for count in targets.counts())  # processes average them


def test_upsnets_second_cross_entropy():
    model = make_model("upsnet")
    model.network.config = replace(model.network.config, roi=0.5)
    _, losses = losses_of(model, batch_of({"seed": 1}, {"seed": 3, "things": 0}))
    assert 0 < losses["roi"] < 0.5 * 3 * math.log(7)


def test_targets_leave_out_crowds_and_void():
    segment_map, labels, crowd = draw_scene(seed=2, crowd=2)
    builder = BaselineTargetBuilder(space=LabelSpace("all", NUM_THINGS, NUM_STUFF), divisor=64)
    targets = builder(segment_map[None], [labels], [crowd], [0])
    assert targets.size == (64, 128)
    image = targets.images[0]
    expected = [i for i in range(len(labels)) if labels[i] < NUM_THINGS and not crowd[i]]
    assert image.labels.tolist() == labels[expected].tolist()
    assert len(expected) == 2
    for box, mask, number in zip(image.boxes, image.masks, expected, strict=True):
        where = (segment_map == number + 1).nonzero()
        assert torch.equal(mask[:, :96], segment_map == number + 1)
        assert not mask[:, 96:].any()
        assert box.tolist() == [*where.amin(0).flip(0).tolist(), *(where.amax(0).flip(0) + 1).tolist()]
    for y, x in itertools.product(range(0, 64, 5), range(0, 128, 5)):
        number = int(segment_map[y, x]) - 1 if x < 96 else -1
        ignored = number < 0 or bool(crowd[number])
        assert targets.semantic[0, y, x] == (IGNORE if ignored else labels[number])
        assert image.known[y, x] == (not ignored)


def test_boxes_keep_their_precision_under_bfloat16():
    network = make_model("panoptic_fpn").network.eval()
    x = noise(1, 3, 64, 4096)  # wide: bfloat16 only has multiples of 16 there
    with torch.inference_mode():
        pyramid = network.pyramid(
            {str(i): noise(1, c, 16 >> i, 1024 >> i) for i, c in enumerate(network.backbone.channels)}
        )
        images = ImageList(x, [(64, 4096)])
        plain = network.rpn.anchor_generator(images, list(pyramid.values()))
        halves = network.rpn.anchor_generator(images, [level.bfloat16() for level in pyramid.values()])
    assert torch.equal(plain[0], halves[0])
    assert halves[0].dtype == torch.float32


# --- learning, training, weights and predict --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def city(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("city")
    generate(root, num_train=1, num_val=1, size=(64, 128), progress=False)
    return root


def quality(model: Model, dataset: PanopticDataset) -> dict[str, float]:
    counter = PanopticQuality(dataset.categories)
    raw = dataset.read(0)
    prediction = predict(model, raw.image)
    counter.update(decode_ids(raw.panoptic), dataset.records[0].segments_info, prediction.ids, prediction.segments)
    return summarize(counter.result())


OVERFIT = {  # steps, rate, and smaller anchors, levels and Gaussians for a street scene of 64 × 128 pixels
    "panoptic_fpn": (40, 4e-3, {"anchor_scale": 3.0}),
    "panoptic_deeplab": (90, 5e-3, {"sigma": 4.0}),
    "upsnet": (34, 4e-3, {"anchor_scale": 3.0}),
    "condinst": (60, 4e-3, {"sizes": (24, 48, 96, 192)}),
    "condinst, integrated": (100, 4e-3, {"sizes": (24, 48, 96, 192), "integrated": True, "channels": 32}),
}


@pytest.mark.parametrize("case", OVERFIT)
def test_a_scene_is_learned_by_heart(case, city):
    steps, rate, settings = OVERFIT[case]
    config = micro(case.split(",")[0])
    config = replace(config, baseline=replace(config.baseline, **settings))
    dataset = open_dataset(city, "train")
    torch.manual_seed(0)
    model = build_model(config, dataset.categories)
    if isinstance(model.network, Detector):
        model.network.roi_heads.fg_bg_sampler.batch_size_per_image = 64  # of 512 boxes, for speed
    training = model.for_training().train()
    batch = collate([dataset.read(0).look_up()], [0])
    targets = model.target_builder()(batch.segment_maps, batch.labels, batch.crowd, batch.seeds)
    optimizer = make_optimizer(training, replace(config.train, weight_decay=0.0))
    before = quality(_still(model), dataset)["PQ"]
    training.train()
    for step in range(steps):
        for settings in optimizer.param_groups:
            settings["lr"] = rate * min(1, (step + 1) / 10) * (1 - step / steps) ** 0.9
        losses = training(batch, targets, targets.counts())
        optimizer.zero_grad()
        losses["total"].backward()
        torch.nn.utils.clip_grad_norm_(training.parameters(), 10.0)
        optimizer.step()
    after = quality(_still(model), dataset)
    assert before < 5
    assert min(after["PQ_th"], after["PQ_st"]) > 15, after
    assert after["PQ"] > 25, after


def _still(model: Model) -> Model:
    model.network.eval()
    return model


@pytest.mark.parametrize("system", SYSTEMS)
def test_the_same_loop_evaluator_and_weights(system, city, tmp_path):
    config = micro(system)
    config = replace(
        config,
        input=replace(config.input, crop=(64, 128), workers=0),
        train=replace(config.train, iterations=2, batch_size=2, images_per_device=1, reference_batch=2, warmup=1),
    )
    record = train(config, data=city, out=tmp_path)
    assert record["status"] == "finished"
    assert record["config"]["baseline"]["system"] == system
    assert 0 <= record["metrics"]["PQ"] <= 100
    assert record["metrics"]["network_seconds"] > 0
    assert not (tmp_path / "auxiliary.safetensors").exists()
    model = load_model(tmp_path / "model.safetensors")
    assert model.config == config
    assert isinstance(model.network, Baseline)
    image = open_dataset(city, "val").read(0).image
    save_model(model, tmp_path / "again.safetensors")
    one, two = (predict(m, image, instances=True) for m in (model, load_model(tmp_path / "again.safetensors")))
    assert np.array_equal(one.ids, two.ids)
    assert one.segments == two.segments
    assert len(one.instances) == len(two.instances)
    with pytest.raises(CheckpointError, match="other settings"):
        train(micro(system), data=city, out=tmp_path, resume=True)


@pytest.mark.parametrize("size", [(5, 3), (33, 130)])
@pytest.mark.parametrize("system", SYSTEMS)
def test_an_image_of_any_size(system, size):
    model = _still(make_model(system))
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    scaled = replace(model.config, input=replace(model.config.input, test_scale=1.7))
    for config in (model.config, scaled):
        prediction = predict(replace(model, config=config), image, instances=True)
        assert prediction.ids.shape == prediction.semantic.shape == size
        ids, areas = np.unique(prediction.ids[prediction.ids > 0], return_counts=True)
        assert dict(zip(ids.tolist(), areas.tolist(), strict=True)) == {s["id"]: s["area"] for s in prediction.segments}
        assert all(found["mask"].shape == size for found in prediction.instances)
        scores = [found["score"] for found in prediction.instances]
        assert scores == sorted(scores, reverse=True)


# --- post-processing --------------------------------------------------------------------------------------------------


def test_segments_are_described_by_their_pixels():
    ids = torch.zeros(6, 8, dtype=torch.int32)
    ids[1:4, 2:7], ids[5] = 1, 3
    found = Segmentation(ids, [2, 0, 5], [0.9, 0.8, None], ids.long(), [Instance(2, 0.9, ids == 1)])
    thing, stuff = found.segments(CATEGORIES)  # the second has no pixel
    assert thing == {"id": 1, "category_id": 12, "isthing": True, "area": 15, "score": 0.9, "bbox": [2, 1, 5, 3]}
    assert stuff == {"id": 3, "category_id": 15, "isthing": False, "area": 8}
    larger = found.resized((12, 16))
    assert torch.equal(larger.ids, ids.repeat_interleave(2, 0).repeat_interleave(2, 1))
    assert larger.segments(CATEGORIES)[0]["bbox"] == [4, 2, 10, 6]
    assert larger.instances[0].mask.sum() == 60
    assert torch.equal(larger.resized((6, 8)).ids, ids)


def rectangles(count: int, height: int, width: int, seed: int) -> list[Placed]:
    generator = torch.Generator().manual_seed(seed)
    placed = []
    for index in range(count):
        top, left = (int(torch.randint(0, n - 4, (), generator=generator)) for n in (height, width))
        rows, columns = slice(top, min(top + 9, height)), slice(left, min(left + 11, width))
        mask = torch.rand(rows.stop - top, columns.stop - left, generator=generator) < 0.8
        placed.append(Placed(index % 3, 0.95 - 0.05 * index, (rows, columns), mask))
    return placed


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("kind", ["stuff+thing", "all"])
def test_merge_is_panoptic_fpns(seed, kind):
    height, width = 20, 26
    placed = rectangles(7, height, width, seed)
    classes = LabelSpace(kind, 3, 4)
    semantic = F.interpolate(noise(1, classes.num_outputs, 4, 5, seed=seed), (height, width))[0].argmax(0)
    ids, labels, scores = merge(placed, semantic, classes, RULES)

    naive = [[0] * width for _ in range(height)]
    found = []
    for instance in placed:
        mask = instance.whole((height, width)).mask
        pixels = [(y, x) for y in range(height) for x in range(width) if mask[y, x]]
        free = [(y, x) for y, x in pixels if naive[y][x] == 0]
        if not pixels or (len(pixels) - len(free)) / len(pixels) > 0.5 or not free:
            continue
        found.append((instance.label, instance.score))
        for y, x in free:
            naive[y][x] = len(found)
    for stuff in range(4):
        pixels = [
            (y, x) for y in range(height) for x in range(width)
            if naive[y][x] == 0 and semantic[y, x] == classes.first_stuff + stuff
        ]  # fmt: skip
        if pixels and len(pixels) >= 0.02 * height * width:
            found.append((3 + stuff, None))
            for y, x in pixels:
                naive[y][x] = len(found)
    assert ids.tolist() == naive
    assert list(zip(labels, scores, strict=True)) == found
    assert 0 < sum(score is not None for score in scores) < 7  # some are dropped


def test_spinets_merge_is_the_same_rule_but_for_its_own_additions():
    """SPINet's merge, on logits at stride 4, also puts likely stuff below missed things; here it must not."""
    logits = F.interpolate(5 * noise(1, 6, 3, 4, seed=3), (10, 14), mode="bicubic")[0]
    resampler = Resampler(network_size=(40, 56), size=(40, 56), device=torch.device("cpu"))
    stuff_logits = noise(7, 10, 14, seed=4)
    semantic = resampler.labels(stuff_logits)
    scores = torch.linspace(0.9, 0.5, 6)
    labels = torch.arange(6) % 3
    masks = MaskLogits.of(logits)
    candidates = Candidates(labels, scores, scores, torch.ones(6), masks, Locations(*[labels] * 3), torch.ones(6))
    placed = [
        Placed(label, score, window, resampler.one(masks, number, window) > 0)
        for number, (label, score, window) in enumerate(
            zip(labels.tolist(), scores.tolist(), resampler.windows(masks, 0.0), strict=True)
        )
    ]
    never = replace(RULES, stuff_threshold=2.0, fill_threshold=None)
    ids, segments = merging.merge(candidates, stuff_logits, semantic, resampler, CATEGORIES, never, CLASSES)
    found = Segmentation(*merge(placed, semantic, CLASSES, RULES), semantic, [])
    assert torch.equal(found.ids, ids)
    assert found.segments(CATEGORIES) == segments


def test_pasted_values_lie_where_the_box_lies():
    values = noise(4, 4).sigmoid()
    window, pasted = paste(values, [3.0, 2.0, 11.0, 6.0], (9, 12))
    assert window == (slice(2, 6), slice(3, 11))
    for row, column in itertools.product(range(4), range(8)):
        y, x = row + 0.5 - 0.5, (column + 0.5) / 2 - 0.5  # in cells: one pixel per cell down, two across
        left, share = math.floor(x), x - math.floor(x)
        ends = [values[int(y), c] if 0 <= c < 4 else torch.tensor(0.0) for c in (left, left + 1)]
        torch.testing.assert_close(pasted[row, column], (1 - share) * ends[0] + share * ends[1])
    assert paste(values, [-3.2, -1.0, 2.5, 30.0], (9, 12))[0] == (slice(0, 9), slice(0, 3))
    assert paste(values, [40.0, 1.0, 50.0, 3.0], (9, 12))[1].numel() == 0  # outside


# --- Panoptic-DeepLab -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
def test_centres_and_groups_and_votes(seed):
    heat = F.interpolate(noise(1, 1, 5, 6, seed=seed), (15, 18), mode="bicubic")[0, 0]
    centres = find_centres(heat, threshold=0.1, peak=7, top=200)
    expected = []
    for y, x in itertools.product(range(15), range(18)):
        around = heat[max(y - 3, 0) : y + 4, max(x - 3, 0) : x + 4]
        if heat[y, x] > 0.1 and heat[y, x] == around.max():
            expected.append((float(heat[y, x]), [y, x]))
    assert centres.tolist() == [place for _, place in sorted(expected, reverse=True)]
    assert torch.equal(find_centres(heat, threshold=0.1, peak=7, top=1), centres[:1])

    offset, semantic = 4 * noise(2, 15, 18, seed=seed), torch.randint(0, 5, (15, 18))
    where = semantic < 3
    nearest = group(centres, offset, where, chunk=7)
    for y, x in itertools.product(range(15), range(18)):
        aim = (y + float(offset[0, y, x]), x + float(offset[1, y, x]))
        distances = [math.dist(aim, centre) for centre in centres.tolist()]
        assert nearest[y, x] == (distances.index(min(distances)) if where[y, x] else -1)
    everywhere = group(centres, offset, torch.ones_like(where))
    assert torch.equal(everywhere.where(where, -1), nearest)  # the faster grouping gives the same map
    assert (group(centres[:0], offset, where) == -1).all()

    classes, present = vote(nearest, semantic, len(centres) + 1, 3)
    for index in range(len(centres)):
        inside = semantic[nearest == index]
        assert present[index] == (len(inside) > 0)
        if len(inside):
            assert classes[index] == torch.bincount(inside, minlength=3).argmax()
    assert not present[-1]


def test_heat_map_and_offsets_of_two_rectangles():
    masks = torch.zeros(2, 20, 30, dtype=torch.bool)
    masks[0, 2:7, 4:13], masks[1, 10:19, 15:26] = True, True  # centres (4, 8) and (14, 20)
    image = truth_of(masks, [0, 1])
    heat, (to_centre, is_thing) = heat_map(image, 2.0), offsets(image)
    for y, x in itertools.product(range(20), range(30)):
        squares = [(y - 4) ** 2 + (x - 8) ** 2, (y - 14) ** 2 + (x - 20) ** 2]
        assert heat[y, x] == pytest.approx(math.exp(-min(squares) / 8), abs=1e-6)
        which = next((i for i in (0, 1) if masks[i, y, x]), None)
        assert is_thing[y, x] == (which is not None)
        aim = (0, 0) if which is None else ((4, 8), (14, 20))[which]
        assert to_centre[:, y, x].tolist() == ([0, 0] if which is None else [aim[0] - y, aim[1] - x])
    nothing = truth_of(masks[:0], [])
    assert not heat_map(nothing, 2.0).any()
    assert not offsets(nothing)[1].any()


@pytest.mark.parametrize("every_pixel", [True, False])
def test_panoptic_deeplab_reads_what_its_targets_say(every_pixel):
    """Perfect outputs give the ground truth; a thing without a centre is void; small stuff is void."""
    network = make_model("panoptic_deeplab").network
    network.config = replace(network.config, group_all_pixels=every_pixel)
    masks = torch.zeros(2, 64, 96, dtype=torch.bool)
    masks[0, 8:28, 8:40], masks[1, 8:28, 40:80] = True, True  # side by side, of one class
    image = truth_of(masks, [1, 1])
    labels = torch.full((64, 96), 4)
    labels[masks.any(0)] = 1
    labels[60:, 92:] = 5  # 16 pixels of 6144
    cells = slice(2, None, 4)
    to_centre = offsets(image)[0][:, cells, cells] / 4
    outputs = DeepLabOutputs(
        semantic=20 * F.one_hot(labels[cells, cells], 7).permute(2, 0, 1)[None].float(),
        centre=heat_map(image, 6.0)[None, None, cells, cells] + 1e-3 * noise(16, 24),  # all pixels differ
        offset=to_centre[None],
    )
    found = network.postprocess(outputs, (64, 96), RULES, instances=True)
    assert found.labels == [1, 1, 4]
    assert len(found.instances) == 2
    for mask in masks:
        inner = mask.clone()
        inner[:, 36:44] = False  # between cells of both, offsets are interpolated
        first = int(found.ids[18, int(inner.nonzero()[:, 1].float().mean())])
        assert (found.ids[inner] == first).float().mean() > 0.99
        assert found.labels[first - 1] == 1
    assert not found.ids[62:, 94:].any()
    outputs.centre = torch.zeros_like(outputs.centre)
    blind = network.postprocess(outputs, (64, 96), RULES, instances=True)
    assert blind.labels == [4]
    assert not blind.ids[12:24, 12:76].any()
    assert blind.instances == []


# --- UPSNet -----------------------------------------------------------------------------------------------------------


def test_panoptic_head_adds_what_two_heads_say():
    semantic, masks = noise(7, 16, 24, seed=1), noise(2, 28, 28, seed=2)
    boxes = torch.tensor([[2.0, 3.0, 12.0, 11.0], [8.0, 1.0, 30.0, 9.0]])  # the second leaves the image
    labels = [2, 0]
    logits = panoptic_logits(semantic, masks, boxes, torch.tensor(labels), CLASSES)
    assert logits.shape == (4 + 2 + 1, 16, 24)
    assert torch.equal(logits[:4], semantic[3:])
    crops = torch.zeros(2, 16, 24)
    for index, (label, box) in enumerate(zip(labels, boxes.int().tolist(), strict=True)):
        window, pasted = paste(masks[index], boxes[index].tolist(), (16, 24))
        mask = torch.zeros(16, 24)
        mask[window] = pasted
        crops[index, box[1] : box[3], box[0] : box[2]] = semantic[label, box[1] : box[3], box[0] : box[2]]
        torch.testing.assert_close(logits[4 + index], crops[index] + mask)
    torch.testing.assert_close(logits[6], semantic[:3].amax(0) - crops.amax(0))
    alone = panoptic_logits(semantic, masks[:0], boxes[:0], torch.tensor([], dtype=torch.long), CLASSES)
    assert torch.equal(alone, torch.cat([semantic[3:], semantic[:3].amax(0, keepdim=True)]))


def test_panoptic_truth_calls_hidden_things_unknown():
    masks = torch.zeros(2, 6, 8, dtype=torch.bool)
    masks[0, :3, :4], masks[1, 3:, 4:] = True, True
    semantic = torch.full((6, 8), 5)  # stuff class 2
    semantic[masks[0]], semantic[masks[1]], semantic[0, 7] = 0, 1, IGNORE
    truth = panoptic_truth(truth_of(masks, [0, 1]), semantic, torch.tensor([1]), CLASSES)
    assert (truth[masks[1]] == 4).all()
    assert (truth[masks[0]] == 5).all()
    assert truth[0, 7] == IGNORE
    assert truth[5, 0] == 2


def test_upsnet_reads_its_panoptic_head():
    """Removes duplicate boxes and masks; weak detections only count for AP; mostly-stuff things become stuff."""
    network = make_model("upsnet").network
    size = (32, 48)
    semantic = torch.zeros(1, 7, 8, 12)
    semantic[:, 4] = 4.0  # stuff class 1 everywhere …
    semantic[:, 0, 2:6, 1:5], semantic[:, 4, 2:6, 1:5] = 6.0, 0.0  # … but a thing of class 0 at [8:24, 4:20]
    whole = torch.full((28, 28), 0.999)
    detections = Detections(
        labels=torch.tensor([0, 1, 0, 2, 0]),
        scores=torch.tensor([0.9, 0.85, 0.8, 0.7, 0.3]),
        boxes=torch.tensor(
            [
                [4.0, 8.0, 20.0, 24.0],  # the thing
                [4.0, 8.0, 20.0, 25.0],  # nearly the same box, of another class
                [8.0, 10.0, 22.0, 22.0],  # another box of the same class, mostly inside the first mask
                [30.0, 4.0, 44.0, 20.0],  # where the semantic head predicts only stuff
                [30.0, 20.0, 40.0, 30.0],  # not confident enough
            ]
        ),
        masks=torch.stack([whole] * 5),
    )
    outputs = DetectorOutputs(torch.zeros(1, 3, 64, 64), {}, semantic, [detections])
    found = network.postprocess(outputs, size, RULES, instances=True)
    assert len(found.instances) == 5
    assert found.labels == [0, 4]
    assert found.scores == [pytest.approx(0.9), None]
    assert (found.ids[10:22, 6:18] == 1).all()
    assert (found.ids[24:, :] == 2).all()
    assert (found.ids[6:18, 32:42] == 2).all()  # the semantic head labels most of its pixels as stuff


# --- CondInst ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("channels", "numbers"), [(8, 169), (32, 361)])
def test_each_filter_is_a_network_of_three_convolutions(channels, numbers):
    shared, filters = noise(channels, 5, 7, seed=1), noise(3, sum(map(sum, dynamic_layers(channels))), seed=2)
    places, sizes = torch.tensor([[4.0, 12.0], [33.0, 20.0], [50.0, 4.0]]), torch.tensor([64.0, 128.0, 1024.0])
    assert filters.shape[1] == numbers
    logits = draw(shared, filters, places, sizes)
    for index in range(3):
        x = (places[index, 0] - (torch.arange(7) * 8 + 4)) / sizes[index]
        y = (places[index, 1] - (torch.arange(5) * 8 + 4)) / sizes[index]
        out = torch.cat([x.expand(1, 5, 7), y[:, None].expand(1, 5, 7), shared])[None]
        numbers, start = filters[index], 0
        weights = []
        for shape in ((8, channels + 2, 1, 1), (8, 8, 1, 1), (1, 8, 1, 1)):
            weights.append(numbers[start : start + math.prod(shape)].view(shape))
            start += math.prod(shape)
        for layer, (weight, count) in enumerate(zip(weights, (8, 8, 1), strict=True)):
            out = F.conv2d(out.relu() if layer else out, weight, numbers[start : start + count])
            start += count
        torch.testing.assert_close(logits[index], out[0, 0], rtol=1e-4, atol=1e-5)
    assert draw(shared, filters[:0], places[:0], sizes[:0]).shape == (0, 5, 7)


def test_with_absolute_coordinates_a_mask_depends_on_its_filter_alone():
    config = micro("condinst")
    relative = _still(build_model(config, CATEGORIES)).network
    absolute = deepcopy(relative)
    absolute.config = replace(relative.config, relative=False)
    outputs = relative(torch.randint(0, 256, (1, 3, 128, 256), dtype=torch.uint8))
    outputs.filters[:] = noise(1, outputs.filters.shape[2], seed=1)
    far = torch.tensor([0, outputs.grid.positions.shape[0] - 1])  # of the finest and of the coarsest level
    with torch.no_grad():
        one, other = absolute.masks(outputs, 0, far)
        theirs = relative.masks(outputs, 0, far)
    torch.testing.assert_close(one, other)
    assert one.std() > 0
    assert ((theirs - one).abs().amax((1, 2)) > 0.1).all()


@pytest.mark.parametrize("channels", [8, 16])
def test_integrated_paths_share_one_mask_feature(channels):
    """§5.4: learned filters compute stuff only from the shared channels of the masks."""
    config = micro("condinst")
    config = replace(config, baseline=replace(config.baseline, integrated=True, channels=channels))
    network = _still(build_model(config, CATEGORIES)).network
    assert not any("semantic_branch" in name for name, _ in network.named_parameters())
    seen = []
    network.mask_branch.register_forward_hook(lambda module, inputs, output: seen.append(output))
    outputs = network(torch.randint(0, 256, (2, 3, 128, 256), dtype=torch.uint8))
    assert outputs.shared.shape == (2, channels, 16, 32)
    assert outputs.filters.shape[2] == (channels + 2) * 8 + 8 * 8 + 8 + 17
    logits = F.conv2d(seen[0], network.stuff_filters.weight, network.stuff_filters.bias)
    assert logits.shape[1] == network.classes.num_outputs
    torch.testing.assert_close(
        outputs.semantic, F.interpolate(logits, scale_factor=2, mode="bilinear"), rtol=1e-4, atol=1e-5
    )
    gradient = torch.autograd.grad(outputs.semantic.square().sum(), network.mask_branch.tower[-1].weight)[0]
    assert gradient.abs().amax((1, 2, 3)).min() > 0  # every channel matters for stuff


@pytest.mark.parametrize("seed", range(3))
def test_locations_take_the_smallest_thing_near_them(seed):
    generator = torch.Generator().manual_seed(seed)
    masks = torch.zeros(5, 64, 96, dtype=torch.bool)
    for mask in masks:
        top, left, tall, wide = (int(torch.randint(4, n, (), generator=generator)) for n in (40, 60, 24, 36))
        mask[top : top + tall, left : left + wide] = True
    image = truth_of(masks, [0, 1, 2, 0, 1])
    config = CondInstConfig(sizes=(12, 24, 48, 96))
    strides = [8, 16]
    grid = make_grid([torch.zeros(1, 1, 64 // s, 96 // s) for s in strides], strides)
    found = assign(grid, image, config)
    expected = []
    for level, stride in enumerate(strides):
        low, high = (0, 12) if level == 0 else (12, 24)
        for row, column in itertools.product(range(64 // stride), range(96 // stride)):
            y, x = (row + 0.5) * stride, (column + 0.5) * stride
            best = (math.inf, -1)
            for index, (mask, box) in enumerate(zip(masks, image.boxes.tolist(), strict=True)):
                centre = mask.nonzero().float().mean(0) + 0.5
                sides = (x - box[0], y - box[1], box[2] - x, box[3] - y)
                near = max(abs(y - float(centre[0])), abs(x - float(centre[1]))) < 1.5 * stride
                if near and min(sides) > 0 and low <= max(sides) <= high:
                    best = min(best, ((box[2] - box[0]) * (box[3] - box[1]), index))
            expected.append(best[1])
    assert found.tolist() == expected
    assert max(expected) >= 0
    assert (assign(grid, truth_of(masks[:0], []), config) == -1).all()
