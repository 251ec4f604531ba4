"""§5.2 Ground truth: the targets of each location, cell and pixel, and the random samples."""

import itertools
import math

import pytest
import torch
from torch.nn import functional as F

from spinet.data.label_space import IGNORE, LabelSpace
from spinet.objective.auxiliary import soft_contour
from spinet.objective.targets import BACKGROUND, Counts, TargetBuilder

STRIDES = [8, 8, 16, 32]


def build(*scenes, seeds=None, **options):
    maps, labels, crowd = zip(*scenes, strict=True)
    space = LabelSpace(options.pop("semantic_classes", "all"), 3, 4)
    builder = TargetBuilder(**{"strides": STRIDES, "space": space} | options)
    return builder(torch.stack(maps), list(labels), list(crowd), seeds or list(range(len(maps))))


def boxes(*rectangles, size=(64, 96)):
    """A scene from (label, top, left, height, width), things of labels 0 … 2."""
    segment_map = torch.zeros(size, dtype=torch.int32)
    for i, (_, top, left, height, width) in enumerate(rectangles):
        segment_map[top : top + height, left : left + width] = i + 1
    labels = torch.tensor([label for label, *_ in rectangles], dtype=torch.int64)
    return segment_map, labels, torch.zeros(len(labels), dtype=torch.bool)


# --- locations --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("assignment", ["centre", "any"])
@pytest.mark.parametrize("strides", [STRIDES, [8, 8, 16, 32, 32], [8, 16, 32, 64, 128]])
def test_a_location_belongs_to_the_instance_whose_interpolated_mask_has_it(scene, strides, assignment):
    """Naive version: each mask is resized to the level, and the smallest instance is written last."""
    segment_map, labels, crowd = scene(0, height=128, width=256, things=6, crowd=1)
    everywhere = build(
        (segment_map, labels, crowd), strides=strides, divisor=128, samples_per_image=10**6, assignment=assignment
    )
    areas = torch.bincount(segment_map.flatten())[1:]
    things = [i for i in range(len(labels)) if labels[i] < 3 and not crowd[i]]
    image, overlaps = everywhere.images[0], 0
    for level, (stride, classes) in enumerate(zip(strides, everywhere.classes, strict=True)):
        size = (128 // stride, 256 // stride)
        expected, instances = torch.full(size, IGNORE), torch.full(size, IGNORE)  # void
        masks = [(segment_map == i + 1)[None, None].float() for i in range(len(labels))]
        for i, label in enumerate(labels.tolist()):
            mask = F.interpolate(masks[i], size, mode="nearest-exact")[0, 0] > 0
            expected[mask] = IGNORE if crowd[i] else label if label < 3 else BACKGROUND
        mode = {"centre": "nearest-exact", "any": "area"}[assignment]
        for i in sorted(things, key=lambda i: -int(areas[i])):
            mask = F.interpolate(masks[i], size, mode=mode)[0, 0] > 0
            overlaps += int((instances[mask] >= 0).sum())
            expected[mask], instances[mask] = labels[i], things.index(i)
        assert torch.equal(classes[0], expected)
        here = image.sample_level == level
        found = torch.full(size, IGNORE)
        found[image.sample_y[here], image.sample_x[here]] = image.sample_instance[here]
        assert torch.equal(found, instances)
    assert (overlaps > 10) == (assignment == "any")
    assert {IGNORE, BACKGROUND} < set(everywhere.classes[0].unique().tolist())


def test_every_instance_has_a_location_on_every_level_unless_smaller_ones_take_it():
    tiny_things = boxes((0, 0, 0, 1, 1), (1, 5, 40, 2, 3), (2, 33, 63, 3, 1), (2, 60, 90, 1, 2))
    image = build(tiny_things, assignment="any", samples_per_image=10**6).images[0]
    assert all(set(image.sample_instance[image.sample_level == level].tolist()) == {0, 1, 2, 3} for level in range(4))
    assert not len(build(tiny_things, assignment="centre").images[0].sample_instance)
    beside = boxes((0, 0, 0, 6, 6), (1, 6, 0, 2, 2))  # in one cell of every level
    assert build(beside, assignment="any").images[0].sample_instance.tolist() == [1] * 4


@pytest.mark.parametrize("assignment", ["centre", "any"])
def test_void_and_crowds_are_ignored_everywhere(scene, assignment):
    segment_map, labels, crowd = scene(1, crowd=2)
    targets = build((segment_map, labels, crowd), assignment=assignment)
    nobody = (segment_map == 0) | torch.tensor([False, *crowd])[segment_map]
    image = targets.images[0]
    assert (targets.semantic[0][nobody] == IGNORE).all()
    assert (targets.semantic[0][~nobody] >= 0).all()
    assert torch.equal(targets.contour[0] == IGNORE, nobody)
    assert targets.contour[0].max() == 1
    for stride, classes in zip(STRIDES, targets.classes, strict=True):
        centre = slice(stride // 2, None, stride), slice(stride // 2, None, stride)
        pixels = torch.tensor([0.0, *((labels < 3) & ~crowd)])[segment_map]
        things = F.max_pool2d(pixels[None], stride)[0] if assignment == "any" else pixels[centre]
        things = things > 0
        assert torch.equal(classes[0] >= 0, things)
        ignored = nobody[centre][~things]
        assert torch.equal(classes[0][~things] == IGNORE, ignored)
        assert ignored.any()
    assert len(image.labels) == 2
    assert not image.masks.sum(0)[F.max_pool2d((~nobody)[None].float(), 4)[0] == 0].any()
    assert image.masks.sum() > 0


# --- masks ------------------------------------------------------------------------------------------------------------


def test_masks_are_the_share_of_each_cell(scene):
    segment_map, labels, crowd = scene(2, things=5, crowd=1)
    image = build((segment_map, labels, crowd)).images[0]
    kept = [i for i, label in enumerate(labels) if label < 3 and not crowd[i]]
    assert image.labels.tolist() == labels[kept].tolist()
    assert len(image.masks) == len(kept) == 4
    for mask, i in zip(image.masks, kept, strict=True):
        for y, x in itertools.product(range(16), range(24)):
            cell = segment_map[4 * y : 4 * y + 4, 4 * x : 4 * x + 4]
            assert float(mask[y, x]) == sum(int(pixel) == i + 1 for pixel in cell.flatten()) / 16
        assert float(mask.sum()) == float((segment_map == i + 1).sum()) / 16


# --- sampling ---------------------------------------------------------------------------------------------------------


def first_draws(scene, sampling, count=600):
    """Instance and level of the first sample of each seed."""
    maps, labels, crowd = scene
    builder = TargetBuilder(strides=STRIDES, space=LabelSpace("all", 3, 4), samples_per_image=1, sampling=sampling)
    images = [builder(maps[None], [labels], [crowd], [seed]).images[0] for seed in range(count)]
    return torch.tensor([[int(image.sample_instance), int(image.sample_level)] for image in images]).unbind(1)


def assert_frequencies(draws, shares):
    """Every frequency is within four standard deviations of its expected value."""
    for value, share in enumerate(shares):
        deviation = math.sqrt(share * (1 - share) / len(draws))
        assert abs(float((draws == value).float().mean()) - share) < 4 * deviation


def test_location_sampling_is_uniform_over_the_locations_of_all_levels():
    big_and_small = boxes((0, 0, 0, 32, 64), (1, 32, 64, 32, 32))  # twice the area
    instances, levels = first_draws(big_and_small, "location")
    assert_frequencies(instances, [2 / 3, 1 / 3])
    places = torch.tensor([16.0, 16.0, 4.0, 1.0])  # the boxes fill half of every level
    assert_frequencies(levels, (places / places.sum()).tolist())


def test_instance_sampling_gives_equal_shares():
    instances, _ = first_draws(boxes((0, 0, 0, 32, 64), (1, 48, 80, 16, 16)), "instance")  # eight times the area
    assert_frequencies(instances, [1 / 2, 1 / 2])


@pytest.mark.parametrize("assignment", ["centre", "any"])
@pytest.mark.parametrize("sampling", ["location", "instance"])
def test_samples_are_different_places_inside_their_instance(scene, sampling, assignment):
    segment_map, labels, crowd = scene(3, things=5, crowd=1)
    instance_of = {i + 1: k for k, i in enumerate(i for i in range(len(labels)) if labels[i] < 3 and not crowd[i])}
    options = {"sampling": sampling, "assignment": assignment}
    foreground = sum(int((level >= 0).sum()) for level in build((segment_map, labels, crowd), **options).classes)
    for limit in (1, 10, foreground, 1000):
        image = build((segment_map, labels, crowd), samples_per_image=limit, **options).images[0]
        places = list(zip(*(x.tolist() for x in (image.sample_level, image.sample_y, image.sample_x)), strict=True))
        assert len(places) == len(set(places)) == min(limit, foreground)
        for (level, y, x), instance in zip(places, image.sample_instance.tolist(), strict=True):
            stride = STRIDES[level]
            cell = segment_map[y * stride : (y + 1) * stride, x * stride : (x + 1) * stride]
            here = cell if assignment == "any" else cell[stride // 2, stride // 2]
            assert instance in [instance_of.get(value) for value in here.unique().tolist()]


@pytest.mark.parametrize("sampling", ["location", "instance"])
def test_draws_depend_on_the_image_and_its_seed_alone(scene, sampling):
    pictures = [scene(0, things=5), scene(1, things=0), scene(2, things=2)]  # different K in a batch
    batch = build(*pictures, seeds=[5, 6, 7], sampling=sampling, samples_per_image=20)
    for i, picture in enumerate(pictures):
        alone = build(picture, seeds=[5 + i], sampling=sampling, samples_per_image=20)
        for field in vars(alone.images[0]):
            assert torch.equal(getattr(alone.images[0], field), getattr(batch.images[i], field)), field
    assert [len(image.labels) for image in batch.images] == [5, 0, 2]
    other = build(pictures[0], seeds=[50], sampling=sampling, samples_per_image=20).images[0]
    same = zip(*([x.sample_level, x.sample_y, x.sample_x] for x in (other, batch.images[0])), strict=True)
    assert not all(torch.equal(*pair) for pair in same)


# --- semantic labels --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [1, 4])
@pytest.mark.parametrize("kind", ["stuff", "stuff+thing", "all"])
def test_semantic_labels(scene, kind, step):
    segment_map, labels, crowd = scene(4, crowd=1)
    targets = build((segment_map, labels, crowd), semantic_classes=kind, semantic_stride=step)
    thing = {"stuff": [IGNORE] * 3, "stuff+thing": [4] * 3, "all": [0, 1, 2]}[kind]
    stuff = {"stuff": [0, 1, 2, 3], "stuff+thing": [0, 1, 2, 3], "all": [3, 4, 5, 6]}[kind]
    table = [IGNORE, *(IGNORE if c else [*thing, *stuff][label] for label, c in zip(labels, crowd, strict=True))]
    expected = torch.tensor(table)[segment_map][step // 2 :: step, step // 2 :: step]
    assert torch.equal(targets.semantic[0], expected)
    outputs = LabelSpace(kind, 3, 4).num_outputs
    assert outputs == {"stuff": 4, "stuff+thing": 5, "all": 7}[kind]
    assert targets.present[0].tolist() == [bool((expected == c).any()) for c in range(outputs)]
    assert targets.counts().stuff_pairs == len(set(expected.unique().tolist()) - {IGNORE})


def test_dice_classes_all_counts_absent_classes_too(scene):
    targets = build(scene(0), scene(1), dice_classes="all")
    assert targets.present.shape == (2, 7)
    assert targets.present.all()


# --- contour ----------------------------------------------------------------------------------------------------------


def naive_contour(labels, sigma):
    """exp(−d²/2σ²), with d the distance to the nearest contour pixel in a window of ⌈3σ⌉ pixels."""
    height, width = labels.shape

    def is_contour(y, x):
        neighbours = [(y + 1, x), (y - 1, x), (y, x + 1), (y, x - 1)]
        inside = [labels[p] for p in neighbours if 0 <= p[0] < height and 0 <= p[1] < width]
        return labels[y, x] >= 0 and any(other >= 0 and other != labels[y, x] for other in inside)

    contour = [(y, x) for y in range(height) for x in range(width) if is_contour(y, x)]
    radius, soft = math.ceil(3 * sigma), torch.zeros(height, width)
    for y, x in itertools.product(range(height), range(width)):
        near = [(y - v) ** 2 + (x - u) ** 2 for v, u in contour if abs(y - v) <= radius and abs(x - u) <= radius]
        soft[y, x] = (math.exp(-min(near) / (2 * sigma**2)) if sigma else float(min(near) == 0)) if near else 0.0
    return soft


@pytest.mark.parametrize("sigma", [0.0, 0.7, 1.0, 2.0])
def test_soft_contour(sigma):
    labels = torch.full((16, 20), IGNORE)
    labels[2:14, 2:9] = 0
    labels[5:10, 9:16] = 1  # a corner, an edge, and ends at void
    labels[3, 4] = 2  # a single pixel
    found, expected = soft_contour(labels, sigma), naive_contour(labels, sigma)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    assert float(found.max()) == 1
    assert float(found.min()) == 0


def test_contours_part_classes_not_instances_void_or_crowds():
    car_beside_car = boxes((0, 0, 0, 64, 48), (0, 0, 48, 64, 48))
    assert not build(car_beside_car).contour.any()
    car_beside_void = boxes((0, 0, 0, 64, 48))
    assert build(car_beside_void).contour.unique().tolist() == [IGNORE, 0]
    segment_map, labels, crowd = boxes((0, 0, 0, 64, 48), (1, 0, 48, 64, 48))
    assert build((segment_map, labels, crowd)).contour[0, 0, 46:50].tolist() == pytest.approx(
        [math.exp(-0.5), 1, 1, math.exp(-0.5)]
    )
    assert build((segment_map, labels, torch.tensor([False, True]))).contour.unique().tolist() == [IGNORE, 0]
    assert build((segment_map, labels, crowd), contour_sigma=None).contour is None


# --- negatives --------------------------------------------------------------------------------------------------------


def test_negatives_are_of_the_same_class_or_else_of_any():
    car, truck = 0, 1
    image = build(
        boxes((car, 0, 0, 16, 16), (car, 0, 32, 16, 16), (truck, 32, 0, 16, 16), (car, 32, 32, 16, 16))
    ).images[0]
    assert image.negatives.int().tolist() == [[0, 1, 0, 1], [1, 0, 0, 1], [1, 1, 0, 1], [1, 1, 0, 0]]


def test_an_instance_that_has_no_two_halves_takes_no_part():
    one_cell = (0, 0, 0, 4, 4)
    image = build(boxes(one_cell, (0, 0, 32, 16, 16), (1, 32, 0, 16, 16))).images[0]
    assert not image.halves[:, 0].flatten(1).any(1).all()
    assert image.negatives.int().tolist() == [[0, 0, 0], [0, 0, 1], [0, 1, 0]]


def test_counts(scene):
    targets = build(scene(0), scene(1, things=6, crowd=1), samples_per_image=7)
    counts = targets.counts()
    assert counts.positives == sum(int((level >= 0).sum()) for level in targets.classes) > 50
    assert counts.samples == 14
    assert counts.semantic_pixels == float((targets.semantic != IGNORE).sum()) > 1000
    assert counts.contour_pixels == float((targets.contour != IGNORE).sum()) > 1000
    assert counts.triplets == sum(int(image.negatives.sum()) for image in targets.images) > 0


# --- padding ----------------------------------------------------------------------------------------------------------


def test_padding_is_void(scene):
    """A map of any size gives the same targets as the map padded with void."""
    segment_map, labels, crowd = scene(5, height=50, width=70)
    small = build((segment_map, labels, crowd))
    canvas = F.pad(segment_map, (0, 96 - 70, 0, 64 - 50))
    large = build((canvas, labels, crowd))
    assert [level.shape[1:] for level in small.classes] == [(8, 12), (8, 12), (4, 6), (2, 3)]
    for a, b in zip(small.classes, large.classes, strict=True):
        assert torch.equal(a, b)
    assert torch.equal(small.semantic, large.semantic)
    assert torch.equal(small.contour, large.contour)
    assert small.semantic.shape[1:] == (64, 96)
    assert (small.semantic[0, 50:] == IGNORE).all()
    assert (small.contour[0, :, 70:] == IGNORE).all()
    assert (small.semantic[0, :, 70:] == IGNORE).all()
    for field in vars(small.images[0]):
        assert torch.equal(getattr(small.images[0], field), getattr(large.images[0], field)), field
    assert not small.images[0].masks[:, 13:].any()
    assert not small.images[0].masks[:, :, 18:].any()


def test_no_segment_at_all():
    targets = build((torch.zeros(32, 32, dtype=torch.int32), torch.zeros(0, dtype=torch.int64), torch.zeros(0).bool()))
    assert all((level == IGNORE).all() for level in targets.classes)
    assert not targets.present.any()
    image = targets.images[0]
    assert image.masks.shape == (0, 8, 8)
    assert image.halves.shape == (2, 0, 8, 8)
    assert image.negatives.shape == (0, 0)
    assert targets.counts() == Counts(0, 0, 0, 0, 0, 0)
