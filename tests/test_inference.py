"""§5.2 Inference: each step compared with a naive version, and a network with a known output for each pixel."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F

from spinet.config import TINY, Config, InferenceConfig, InputConfig, ModelConfig, ObjectiveConfig
from spinet.data.label_space import LabelSpace
from spinet.data.segments import Categories, Category
from spinet.evaluation.components import components
from spinet.inference import reference
from spinet.inference.candidates import Candidates, find_candidates, find_peaks, rank
from spinet.inference.duplicates import mask_iou, mask_nms, matrix_nms
from spinet.inference.mask_logits import MaskLogits
from spinet.inference.merge import merge
from spinet.inference.merge_at_once import Merged, masks_at_once, merge_at_once
from spinet.inference.predict import Prediction, postprocess, predict, run_network
from spinet.inference.resample import Resampler
from spinet.model.filter_sampling import FilterSampling, Locations
from spinet.model.layers import Coordinates
from spinet.model.single_shot import SingleShot, within_reach
from spinet.model.spinet import SPINet
from spinet.objective.targets import TargetBuilder
from spinet.synthcity import render_scene
from spinet.systems import SPINetModel, build_model
from spinet.weights import WeightsError, load_model, save_model

KINDS = ["stuff", "stuff+thing", "all"]
CPU = torch.device("cpu")


def make_categories(things=2, stuff=3):
    return Categories.of(
        [Category(id=10 + i, name=f"thing {i}", isthing=True) for i in range(things)]
        + [Category(id=20 + i, name=f"stuff {i}", isthing=False) for i in range(stuff)]
    )


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def random_image(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def blobs(count, height, width, seed=0):
    """Smooth logits, positive on some connected parts."""
    return F.interpolate(noise(1, count, 3, 4, seed=seed) * 5, (height, width), mode="bicubic")[0]


# --- peaks ------------------------------------------------------------------------------------------------------------


def test_peaks_of_a_hand_made_map():
    fine, coarse = torch.full((2, 5, 7), -9.0), torch.full((2, 3, 4), -9.0)
    fine[0, 1, 1], fine[0, 1, 2] = 3.0, 2.0  # a peak and its slope
    fine[0, 4, 6] = 1.0  # a peak in a corner
    fine[1, 1, 2] = 2.5  # another class next to the first peak
    fine[1, 4, 0] = -0.5  # below the threshold
    coarse[1, 2, 3] = 4.0
    locations, labels, confidences = find_peaks([fine, coarse], threshold=0.45, peak=3, top=100)
    found = list(zip(*(part.tolist() for part in (*locations, labels)), strict=True))
    assert found == [(1, 2, 3, 1), (0, 1, 1, 0), (0, 1, 2, 1), (0, 4, 6, 0)]  # level, y, x, class, sorted by score
    torch.testing.assert_close(confidences, torch.tensor([4.0, 3.0, 2.5, 1.0]).sigmoid())
    assert len(find_peaks([fine, coarse], threshold=0.45, peak=1, top=100)[1]) == 5  # the slope too
    assert len(find_peaks([fine, coarse], threshold=0.3, peak=3, top=100)[1]) == 5  # the weak one too
    first = find_peaks([fine, coarse], threshold=0.45, peak=3, top=2)
    assert [part.tolist() for part in (*first[0], first[1])] == [[1, 0], [2, 1], [3, 1], [1, 0]]
    assert [len(part) for part in (*find_peaks([fine], threshold=0.99, peak=3, top=9)[0],)] == [0, 0, 0]


@pytest.mark.parametrize("seed", range(5))
def test_peaks_are_the_largest_of_their_neighbourhood(seed):
    levels = [noise(3, 6, 8, seed=seed), noise(3, 3, 4, seed=seed + 50)]
    expected = set()
    for level, logits in enumerate(levels):
        for c, y, x in itertools.product(*map(range, logits.shape)):
            around = logits[c, max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2]
            if logits[c, y, x].sigmoid() >= 0.6 and logits[c, y, x] == around.max():
                expected.add((level, y, x, c))
    locations, labels, confidences = find_peaks(levels, threshold=0.6, peak=3, top=100)
    assert set(zip(*(part.tolist() for part in (*locations, labels)), strict=True)) == expected
    assert len(expected) > 5
    assert (confidences.diff() <= 0).all()


# --- duplicates -------------------------------------------------------------------------------------------------------


def naive_iou(a, b):
    return float((a & b).sum()) / float((a | b).sum())


def naive_matrix_nms(masks, labels, sigma):
    """SOLOv2: decay_j = min over better i of f(iou_ij) / f(iou_·i), f = exp(−σ iou²), within a class."""
    kept = []
    for j in range(len(masks)):
        decay = 1.0
        for i in range(j):
            if labels[i] == labels[j]:
                better = [naive_iou(masks[k], masks[i]) for k in range(i) if labels[k] == labels[i]]
                iou = naive_iou(masks[i], masks[j])
                decay = min(decay, np.exp(-sigma * iou**2) / np.exp(-sigma * max(better, default=0.0) ** 2))
        kept.append(decay)
    return torch.tensor(kept)


def naive_mask_nms(masks, labels, threshold):
    stay = []
    for j in range(len(masks)):
        rivals = [i for i in stay if labels[i] == labels[j]]
        if all(naive_iou(masks[i], masks[j]) <= threshold for i in rivals):
            stay.append(j)
    return torch.tensor([float(j in stay) for j in range(len(masks))])


def overlapping_masks(seed, count=12):
    masks = blobs(count, 16, 20, seed) > 0
    masks[5] = masks[0]  # an exact duplicate
    masks[6] = masks[1]
    masks[6, :2] = True
    return masks, torch.randint(0, 2, (count,), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("seed", range(6))
def test_nms(seed):
    masks, labels = overlapping_masks(seed)
    iou = mask_iou(MaskLogits.of(masks.float()).above(0.5))
    assert float(iou[2, 9]) == pytest.approx(naive_iou(masks[2], masks[9]), rel=1e-6)
    competing = iou.triu(1) * (labels[:, None] == labels)
    kept = matrix_nms(competing, sigma=2.0)
    torch.testing.assert_close(kept.double(), naive_matrix_nms(masks, labels, 2.0).double(), rtol=1e-5, atol=1e-6)
    assert kept.min() < 0.5 < kept.max()
    stays = mask_nms(competing, threshold=0.5)
    assert torch.equal(stays, naive_mask_nms(masks, labels, 0.5))
    assert 0 < float(stays.sum()) < len(stays)


def as_candidates(logits, labels, confidences, **config):
    nowhere = torch.arange(len(logits))
    found = rank(
        Locations(nowhere, nowhere, nowhere),
        torch.as_tensor(labels),
        torch.as_tensor(confidences),
        MaskLogits.of(logits),
        InferenceConfig(**config),
    )
    empty = found.areas == 0
    assert not empty[: len(empty) - int(empty.sum())].any()  # empty masks come last
    return found[~empty]


@pytest.mark.parametrize("duplicates", ["matrix", "mask", "none"])
def test_rank(duplicates):
    """Scores are confidence × mean mask probability, sorted; empty masks are removed, duplicates get lower scores."""
    logits, labels = blobs(8, 16, 20), [0, 1, 0, 1, 0, 1, 0, 1]
    logits[4] = logits[2]
    logits[7] = -1.0
    confidences = torch.linspace(0.5, 0.9, 8)
    found = as_candidates(logits, labels, confidences, duplicates=duplicates)
    probability = logits.sigmoid()
    mean = torch.stack([p[p > 0.5].mean() if (p > 0.5).any() else torch.tensor(0.0) for p in probability])
    scores = confidences * mean
    order = scores[:7].argsort(descending=True)
    inside, label = probability[order] > 0.5, torch.tensor(labels)[order]
    naive = {"matrix": naive_matrix_nms(inside, label, 2.0), "mask": naive_mask_nms(inside, label, 0.5)}
    kept = torch.ones(7) if duplicates == "none" else naive[duplicates].float()
    expected = (scores[order] * kept).sort(descending=True, stable=True)
    torch.testing.assert_close(found.scores, expected.values, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found.kept, kept[expected.indices], rtol=1e-5, atol=1e-6)
    positive = expected.values > 0
    assert torch.equal(found.locations.level[positive], order[expected.indices][positive])
    assert (float(kept.min()) == 1) == (duplicates == "none")


def test_rank_of_nothing():
    assert len(as_candidates(torch.zeros(0, 4, 4), torch.zeros(0, dtype=torch.int64), torch.zeros(0)).scores) == 0
    assert len(as_candidates(torch.full((2, 4, 4), -1.0), [0, 0], [0.9, 0.8]).scores) == 0


# --- resampling -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(32, 48), (29, 45), (3, 1)])
def test_resampling_is_bilinear_interpolation_without_the_padding(size):
    logits = noise(3, 8, 12)
    resampler = Resampler(network_size=size, size=size, device=CPU)
    expected = F.interpolate(logits[None], scale_factor=4, mode="bilinear", align_corners=False)[0]
    torch.testing.assert_close(resampler.whole(logits), expected[:, : size[0], : size[1]], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("size", [(20, 30), (32, 48), (77, 91)])
def test_resampling_to_another_size_is_bilinear_interpolation_too(size):
    logits = noise(3, 8, 12)
    resampler = Resampler(network_size=(32, 48), size=size, device=CPU)
    expected = F.interpolate(logits[None], size, mode="bilinear", align_corners=False)[0]
    torch.testing.assert_close(resampler.whole(logits), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("network_size", "size"), [((32, 48), (32, 48)), ((29, 45), (58, 61)), ((32, 48), (9, 7)), ((3, 1), (3, 1))]
)
def test_labels_of_pixels_are_those_of_the_resampled_logits(network_size, size):
    """Also with few equal cells, and with whole equal regions."""
    resampler = Resampler(network_size=network_size, size=size, device=CPU)
    for logits in (noise(5, 8, 12), blobs(5, 8, 12)):
        whole = resampler.whole(logits)
        assert torch.equal(resampler.labels(logits), whole.argmax(0))
        rows, columns = torch.nonzero(whole[0] > 0, as_tuple=True)
        values = torch.cat(list(resampler.points(logits, rows, columns))) if len(rows) else whole.new_zeros(0, 5)
        torch.testing.assert_close(values, whole[:, rows, columns].t(), rtol=1e-5, atol=1e-5)


def test_resampling_maps_pixel_centres():
    """Image pixel → network pixel → cell, for a network input of 29 × 45, padded to 32 × 64, of an image of 58 × 60."""
    logits = noise(1, 8, 16)
    whole = Resampler(network_size=(29, 45), size=(58, 60), device=CPU).whole(logits)[0]
    for y, x in itertools.product(range(0, 58, 7), range(0, 60, 7)):
        v = min(max((y + 0.5) * 29 / 58 / 4 - 0.5, 0), 7)
        u = min(max((x + 0.5) * 45 / 60 / 4 - 0.5, 0), 15)
        i, j = int(v), int(u)
        upper, lower = ((1 - (u - j)) * row[j] + (u - j) * row[min(j + 1, 15)] for row in logits[0, [i, min(i + 1, 7)]])
        assert float(whole[y, x]) == pytest.approx(float((1 - (v - i)) * upper + (v - i) * lower), abs=1e-5)


SIZES = [((32, 48), (32, 48)), ((29, 45), (29, 45)), ((32, 48), (100, 31)), ((30, 40), (7, 9)), ((30, 40), (301, 201))]


@pytest.mark.parametrize(("network_size", "size"), SIZES)
def test_a_window_is_a_part_of_the_whole(network_size, size):
    logits = noise(2, 8, 12)
    resampler = Resampler(network_size=network_size, size=size, device=CPU)
    whole = resampler.whole(logits)
    window = slice(size[0] // 3, size[0] // 2 + 1), slice(size[1] // 4, size[1])
    torch.testing.assert_close(resampler.one(MaskLogits.of(logits), 1, window), whole[1][window], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("network_size", "size"), SIZES)
def test_no_pixel_of_a_mask_lies_outside_its_rectangle(network_size, size):
    resampler = Resampler(network_size=network_size, size=size, device=CPU)
    logits = torch.full((31, 8, 12), -0.01)
    generator = torch.Generator().manual_seed(0)
    for one in logits[:30]:
        top, left = (int(torch.randint(0, limit, (1,), generator=generator)) for limit in (8, 12))
        one[top : top + 2, left : left + 1] = 9.0
    windows = resampler.windows(MaskLogits.of(logits), 0.0)
    masks = resampler.whole(logits) > 0
    assert [int(mask[window].sum()) for mask, window in zip(masks, windows, strict=True)] == masks.sum((1, 2)).tolist()
    assert masks.any((1, 2)).sum() > 15
    assert masks[30][windows[30]].numel() == 0


# --- masks on windows -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(40, 60), (9, 60), (5, 4)])
def test_windows_hold_all_that_is_in_reach(size):
    """A window's map equals that of `within_reach`; so do its cells, boxes and pixels."""
    places = noise(20, 2).sigmoid() * torch.tensor(size) * 4
    far = within_reach(noise(20, *size, seed=1), places, reach=22, stride=4)
    logits = MaskLogits.around(far, places, reach=22, stride=4)
    assert logits.values.shape[1:] == (min(15, size[0]), min(15, size[1]))
    assert torch.equal(logits.whole(), far)
    assert torch.equal(logits.above(0.5).to_dense(), far.where(far > 0.5, 0.0).flatten(1))
    assert torch.equal(logits[torch.tensor([3, 1])].whole(), far[[3, 1]])
    far[5] = -1.0
    logits = MaskLogits.around(far, places, reach=22, stride=4)
    for (top, bottom, left, right), mask in zip(logits.boxes(0.5).tolist(), far > 0.5, strict=True):
        cells = mask.nonzero()
        if len(cells):
            assert [top, left, bottom, right] == [*cells.amin(0).tolist(), *cells.amax(0).tolist()]
        else:
            assert bottom < top - 1
            assert right < left - 1
    resampler = Resampler(network_size=(4 * size[0], 4 * size[1]), size=(3 * size[0], 5 * size[1]), device=CPU)
    whole = resampler.whole(far)
    for number, window in enumerate(resampler.windows(logits, 0.0)):
        assert torch.equal(resampler.one(logits, number, window) > 0, whole[number][window] > 0)


@pytest.mark.parametrize("seed", range(4))
def test_connected_masks_are_what_a_flood_from_the_place_reaches(seed):
    values = blobs(8, 16, 20, seed)
    places = noise(8, 2, seed=seed).sigmoid() * torch.tensor([16.0, 20.0])
    found = MaskLogits.of(values).connected(0.5, places).whole()
    lost = 0
    for one, (y, x), after in zip(values, places.tolist(), found, strict=True):
        inside = {tuple(cell) for cell in (one > 0.5).nonzero().tolist()}
        flood = sorted(inside, key=lambda cell: (cell[0] + 0.5 - y) ** 2 + (cell[1] + 0.5 - x) ** 2)[:1]
        for i, j in flood:
            flood += [n for n in ((i - 1, j), (i + 1, j), (i, j - 1), (i, j + 1)) if n in inside and n not in flood]
        assert {tuple(cell) for cell in (after > 0.5).nonzero().tolist()} == set(flood)
        assert torch.equal(after[one <= 0.5], one[one <= 0.5])
        lost += len(inside) - len(flood)
    assert lost > 0


# --- merge ------------------------------------------------------------------------------------------------------------


def naive_merge(logits, labels, semantic_logits, things, stuff, kind, config):
    """The map and (label, area) of each segment, computed pixel by pixel; labels as in the data, things first."""
    height, width = semantic_logits.shape[1:]
    seen = semantic_logits.argmax(0)
    ids, placed = np.zeros((height, width), int), []
    for number, label in enumerate(labels):
        mask = [(y, x) for y, x in itertools.product(range(height), range(width)) if logits[number, y, x] > 0]
        if config.agreement is not None:
            output = {"all": label, "stuff+thing": stuff, "stuff": None}[kind]
            same = [(y, x) for y, x in mask if int(seen[y, x]) == output]
            mask = same if len(same) >= config.agreement * len(mask) else mask
        free = [(y, x) for y, x in mask if ids[y, x] == 0]
        if free and len(mask) - len(free) <= config.overlap * len(mask):
            placed.append((number, set(mask)))
            for y, x in free:
                ids[y, x] = len(placed)
    if config.contested == "mask":
        for y, x in np.argwhere(ids):
            having = [i for i, (_, mask) in enumerate(placed, start=1) if (y, x) in mask]
            ids[y, x] = max(having, key=lambda i: float(logits[placed[i - 1][0], y, x]))
    kept = [i for i in range(1, len(placed) + 1) if (ids == i).any()]
    segments = [(labels[placed[i - 1][0]], int((ids == i).sum())) for i in kept]
    ids = np.array([0, *(kept.index(i) + 1 if i in kept else 0 for i in range(1, len(placed) + 1))])[ids]
    stuff_labels = {
        "stuff": [things + i for i in range(stuff)],
        "stuff+thing": [*(things + i for i in range(stuff)), None],
        "all": [*[None] * things, *(things + i for i in range(stuff))],
    }[kind]
    outputs = [i for i, label in enumerate(stuff_labels) if label is not None]
    free = {label: [] for label in range(things, things + stuff)}
    for y, x in np.argwhere(ids == 0):
        probability = semantic_logits[:, y, x].softmax(0)
        best = max(outputs, key=lambda i: float(probability[i]))
        sees_a_thing = stuff_labels[int(probability.argmax())] is None
        if not sees_a_thing or float(probability[best]) >= config.stuff_threshold:
            free[stuff_labels[best]].append((y, x))
    for label, pixels in free.items():
        if pixels and len(pixels) >= config.min_stuff_area * height * width:
            segments.append((label, len(pixels)))
            for y, x in pixels:
                ids[y, x] = len(segments)
    return ids, segments


def fourfold(logits):
    """Maps at stride 4 at every pixel."""
    return F.interpolate(logits[None], scale_factor=4, mode="bilinear")[0]


def run_merge(mask_logits, labels, stuff_logits, kind="all", things=2, stuff=3, **options):
    config = InferenceConfig(**options)
    count, size = len(mask_logits), tuple(4 * side for side in stuff_logits.shape[1:])
    scores = torch.linspace(0.9, 0.5, count)
    candidates = Candidates(
        torch.as_tensor(labels),
        scores,
        scores,
        torch.ones(count),
        MaskLogits.of(mask_logits),
        Locations(*[torch.zeros(count)] * 3),
        (mask_logits > 0).flatten(1).sum(1),
    )
    resampler = Resampler(network_size=size, size=size, device=CPU)
    semantic = fourfold(stuff_logits).argmax(0)
    categories, space = make_categories(things, stuff), LabelSpace(kind, things, stuff)
    ids, segments = merge(candidates, stuff_logits, semantic, resampler, categories, config, space)
    # the CUDA variant, which merges all instances at once
    merged = merge_at_once(
        candidates,
        masks_at_once(candidates, resampler.whole(stuff_logits).argmax(0), resampler, config, space),
        torch.ones(count, dtype=torch.bool),
        resampler.whole(stuff_logits),
        resampler,
        config,
        space,
        rounds=count,
    )
    facts = (part.numpy() for part in (merged.things, merged.stuff, candidates.labels, scores))
    assert merged.settled
    assert Merged.segments(*facts, categories) == segments
    assert torch.equal(merged.ids, ids)
    return ids.numpy(), segments


def assert_consistent(ids, segments, categories=None):
    """Ids and areas match the map; boxes fit their segments exactly."""
    assert sorted(set(np.unique(ids)) - {0}) == sorted(segment["id"] for segment in segments)
    for segment in segments:
        y, x = np.nonzero(ids == segment["id"])
        assert segment["area"] == len(y)
        if "bbox" in segment:
            assert segment["bbox"] == [x.min(), y.min(), x.max() - x.min() + 1, y.max() - y.min() + 1]
        if categories is not None:
            assert segment["isthing"] == categories.all[categories.label_of[segment["category_id"]]].isthing
            assert ("score" in segment) == ("bbox" in segment) == segment["isthing"]
    stuff = [segment["category_id"] for segment in segments if not segment.get("isthing", True)]
    assert len(stuff) == len(set(stuff))


@pytest.mark.parametrize(
    "rules", [{}, {"agreement": 0.3}, {"contested": "mask"}, {"agreement": 0.1, "contested": "mask"}]
)
@pytest.mark.parametrize("things", [1, 2])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(3))
def test_merge(seed, kind, things, rules):
    """Also with one thing class, where "stuff+thing" and "all" have equally many outputs in different order."""
    count = 6
    mask_logits = blobs(count, 8, 10, seed) - 3
    mask_logits[3] = mask_logits[0]  # completely covered already
    labels = [i % things for i in range(count)]
    stuff_logits = blobs(LabelSpace(kind, things, 3).num_outputs, 8, 10, seed=seed + 9) / 2
    options = {"stuff_threshold": 0.3, "min_stuff_area": 0.05, **rules}
    ids, segments = run_merge(mask_logits, labels, stuff_logits, kind, things, **options)
    tall, semantic_logits = fourfold(mask_logits), fourfold(stuff_logits)
    expected_ids, expected = naive_merge(tall, labels, semantic_logits, things, 3, kind, InferenceConfig(**options))
    assert np.array_equal(ids, expected_ids)
    categories = make_categories(things)
    assert [(categories.label_of[s["category_id"]], s["area"]) for s in segments] == expected
    assert_consistent(ids, segments, categories)
    assert {True, False} == {s["isthing"] for s in segments}
    assert (ids == 0).any() or kind == "stuff"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(3))
def test_instances_take_the_free_pixels_that_the_stuff_path_gives_to_their_class(seed, kind):
    mask_logits, labels = blobs(6, 8, 10, seed) - 3, [0, 1, 0, 1, 0, 1]
    stuff_logits = blobs(LabelSpace(kind, 2, 3).num_outputs, 8, 10, seed=seed + 9) / 2
    stuff_logits[{"stuff": [], "stuff+thing": [3], "all": [0, 1]}[kind]] += 1
    options = {"stuff_threshold": 1.0, "min_stuff_area": 0.0}
    before, segments = run_merge(mask_logits, labels, stuff_logits, kind, **options)
    after, filled = run_merge(mask_logits, labels, stuff_logits, kind, fill_threshold=0.1, **options)
    assert_consistent(after, filled)
    things = [segment for segment in segments if segment["isthing"]]
    assert [s["id"] for s in things] == [s["id"] for s in filled if s["isthing"]]
    tall = fourfold(mask_logits).sigmoid()
    # match every kept mask to the candidate that agrees with most of it
    source = [
        max(range(6), key=lambda k, i=s["id"]: float((tall[k] > 0.5)[before == i].float().mean())) for s in things
    ]
    expected, categories, gained = before.copy(), make_categories(2, 3), 0
    seen = fourfold(stuff_logits).argmax(0)
    for y, x in itertools.product(range(32), range(40)):
        if before[y, x] in [s["id"] for s in things]:
            continue
        own = {"all": lambda label: label, "stuff+thing": lambda _: 3, "stuff": lambda _: None}[kind]
        rivals = [
            (float(tall[k, y, x]), s["id"])
            for k, s in zip(source, things, strict=True)
            if own(categories.label_of[s["category_id"]]) == int(seen[y, x]) and float(tall[k, y, x]) > 0.1
        ]
        if rivals:
            expected[y, x] = max(rivals)[1]
            gained += 1
    is_thing = np.isin(expected, [s["id"] for s in things])
    assert np.array_equal(np.where(is_thing, expected, 0), np.where(after <= len(things), after, 0))
    assert (gained > 0) == (kind != "stuff")


def test_a_better_instance_comes_first_and_one_mostly_taken_is_dropped():
    def strip(*columns):
        mask = torch.full((8, 10), -10.0)
        mask[:, list(columns)] = 10.0
        return mask

    semantic = torch.zeros(5, 8, 10)
    semantic[2] = 10.0
    masks = torch.stack([strip(0, 1, 2, 3), strip(2, 3, 4, 5), strip(3, 4, 5, 6), strip(7), strip(7)])
    ids, segments = run_merge(masks, [0, 0, 1, 1, 1], semantic)
    assert [(s["category_id"], s["area"]) for s in segments] == [(10, 16 * 32), (10, 8 * 32), (11, 4 * 32), (20, 384)]
    assert ids[5].tolist() == [1] * 16 + [2] * 8 + [4] * 4 + [3] * 4 + [4] * 8
    # the second is half covered and stays; the third is covered by three quarters: its free strip becomes stuff
    _, tolerant = run_merge(masks, [0, 0, 1, 1, 1], semantic, overlap=1.0)
    assert [s["area"] for s in tolerant] == [512, 256, 128, 128, 256]  # the last is completely covered: no segment


def bars(*ranges):
    """Mask logits of vertical bars; each range is first and last column, and the logit inside."""
    masks = torch.full((len(ranges), 8, 10), -20.0)
    for mask, (first, last, inside) in zip(masks, ranges, strict=True):
        mask[:, first : last + 1] = inside
    return masks


def test_a_mask_keeps_the_pixels_of_its_class_unless_they_are_too_few():
    semantic = torch.full((5, 8, 10), -20.0)
    semantic[0, :, :4] = semantic[3, :, 4:] = 20.0  # a thing class on the left, stuff on the right
    mask, labels = bars((2, 7, 20.0)), [0]
    areas = {
        least: [s["area"] for s in run_merge(mask, labels, semantic, agreement=least)[1] if s["isthing"]]
        for least in (None, 0.3, 0.4)
    }
    assert areas == {None: [24 * 32], 0.3: [8 * 32], 0.4: [24 * 32]}  # a third of it has its class
    for kind in ("stuff", "stuff+thing"):  # no class of its own; one output for all things
        outputs = semantic[2:] if kind == "stuff" else semantic[[1, 2, 3, 0]]
        (thing, *_) = run_merge(mask, labels, outputs, kind, agreement=0.3)[1]
        assert thing["area"] == (24 * 32 if kind == "stuff" else 8 * 32)


def test_a_contested_pixel_goes_to_the_better_score_or_to_the_larger_logit():
    semantic = torch.zeros(5, 8, 10)
    masks = bars((0, 4, 5.0), (3, 7, 10.0))
    first, second = (
        [s["area"] for s in run_merge(masks, [0, 0], semantic, contested=rule)[1][:2]] for rule in ("score", "mask")
    )
    assert first[0] > second[0]
    assert first[1] < second[1]
    # the better score is inside the other mask, whose logits are larger: it keeps no pixel
    for rule, things in (("score", 2), ("mask", 1)):
        _, segments = run_merge(bars((1, 2, 5.0), (0, 5, 10.0)), [0, 0], semantic, contested=rule, overlap=1.0)
        assert sum(s["isthing"] for s in segments) == things


def test_small_stuff_is_void():
    semantic = torch.full((5, 5, 5), -10.0)
    semantic[2] = 0.0
    semantic[3, 0, 0] = 10.0  # the larger in 15 pixels of 400
    nothing = torch.zeros(0, 5, 5)
    _, segments = run_merge(nothing, torch.zeros(0, dtype=torch.int64), semantic, min_stuff_area=15 / 400)
    assert [s["area"] for s in segments] == [385, 15]
    ids, segments = run_merge(nothing, torch.zeros(0, dtype=torch.int64), semantic, min_stuff_area=16 / 400)
    assert [s["area"] for s in segments] == [385]
    assert (ids[:3, :3] == 0).all()
    assert (ids == 0).sum() == 15


@pytest.mark.parametrize("kind", KINDS)
def test_stuff_where_the_stuff_path_sees_a_thing(kind):
    """Left half: a thing, and stuff 1 with probability 0.25. Right half: stuff 1 for sure."""
    outputs = LabelSpace(kind, 2, 3).num_outputs
    first = LabelSpace(kind, 2, 3).first_stuff
    probability = torch.full((outputs, 2, 4), 1e-6)
    probability[first + 1] = 1.0
    if kind != "stuff":
        probability[first + 1, :, :2] = 0.25
        probability[0 if kind == "all" else outputs - 1, :, :2] = 0.75
    nothing, no_labels = torch.zeros(0, 2, 4), torch.zeros(0, dtype=torch.int64)
    options = {"min_stuff_area": 0.0}
    ids, _ = run_merge(nothing, no_labels, probability.log(), kind, stuff_threshold=0.2, **options)
    assert (ids > 0).all()
    ids, segments = run_merge(nothing, no_labels, probability.log(), kind, stuff_threshold=0.3, **options)
    assert (ids[:, :6] > 0).all() == (kind == "stuff")
    assert (ids[:, 10:] > 0).all()
    assert [s["category_id"] for s in segments] == [21]


# --- components -------------------------------------------------------------------------------------------------------


def flood_fill(labels):
    """Connected parts, with 8 neighbours, of equal labels ≥ 0: a list of (label, set of pixels)."""
    left = {(y, x) for y, x in np.argwhere(labels >= 0).tolist()}
    parts = []
    while left:
        start = left.pop()
        part, front = {start}, [start]
        while front:
            y, x = front.pop()
            for pixel in itertools.product((y - 1, y, y + 1), (x - 1, x, x + 1)):
                if pixel in left and labels[pixel] == labels[start]:
                    left.remove(pixel)
                    part.add(pixel)
                    front.append(pixel)
        parts.append((int(labels[start]), frozenset(part)))
    return parts


@pytest.mark.parametrize("things", [1, 2])
@pytest.mark.parametrize("kind", ["stuff+thing", "all"])
def test_components(kind, things):
    outputs, stuff = LabelSpace(kind, things, 3).num_outputs, 3
    semantic = blobs(outputs, 24, 30, seed=3).argmax(0).numpy()
    semantic[:8, :8] = outputs - 1 if kind == "all" else 0
    semantic[1:4, 1:4] = semantic[4:7, 4:7] = 0 if kind == "all" else stuff  # touch only at a corner
    class_map = np.random.default_rng(0).integers(0, things, (3, 5)).repeat(8, 0).repeat(6, 1)
    class_map = class_map if kind == "stuff+thing" else None
    config = InferenceConfig(min_component_area=4, min_stuff_area=0.1)
    prediction = Prediction(np.zeros((24, 30)), [], [], semantic, class_map, 0.0, 0.0)
    ids, segments = components(prediction, make_categories(things), config, LabelSpace(kind, things, stuff))
    assert_consistent(ids, segments)
    first = LabelSpace(kind, things, 3).first_stuff
    thing = np.where(semantic < things, semantic, -1) if kind == "all" else np.where(semantic == stuff, class_map, -1)
    expected = {(10 + label, part) for label, part in flood_fill(thing) if len(part) >= 4}
    for i in range(stuff):
        pixels = frozenset(map(tuple, np.argwhere(semantic == first + i).tolist()))
        if len(pixels) >= 0.1 * semantic.size:
            expected.add((20 + i, pixels))
    found = {(s["category_id"], frozenset(map(tuple, np.argwhere(ids == s["id"]).tolist()))) for s in segments}
    assert found == expected
    assert len({c for c, _ in found}) > 2


@pytest.mark.parametrize("kind", KINDS)
def test_semantic_truth_of_the_evaluation_is_that_of_training(scene, kind):
    segment_map, labels, crowd = scene(0, crowd=1)
    space = LabelSpace(kind, 3, 4)
    builder = TargetBuilder(strides=[8], space=space)
    expected = builder(segment_map[None], [labels], [crowd], [0]).semantic[0].numpy()
    found = space.ground_truth(segment_map.numpy(), labels.numpy(), crowd=crowd.numpy())
    assert np.array_equal(found, expected)
    counted = space.ground_truth(segment_map.numpy(), labels.numpy())
    assert (counted >= 0).sum() == (expected >= 0).sum() + (kind != "stuff") * int(
        crowd[segment_map.long() - 1][segment_map > 0].sum()
    )


# --- a network with known outputs -------------------------------------------------------------------------------------

REGIONS = 6  # 0 and 1 are instances of thing 0, 2 of thing 1; 3, 4, 5 are stuff 0, 1, 2
PADDING = 4  # the mean colour, which pads an image, encodes this region


class ReadColours(nn.Module):
    """Replaces the backbone: red / 30 is a pixel's region, green marks the location of its filter."""

    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

    def forward(self, x):
        mean, std = 255 * torch.tensor([0.485, 0.456]), 255 * torch.tensor([0.229, 0.224])
        red, green = (x[:, :2] * std[:, None, None] + mean[:, None, None]).unbind(1)
        region = F.one_hot((red / 30).round().long(), REGIONS).permute(0, 3, 1, 2).float()
        colours = torch.cat([region, green[:, None] / 255], dim=1)
        return [colours[:, :, s // 2 :: s, s // 2 :: s] for s in (4, 8, 16, 32)]


class PassOn(nn.Module):
    """Replaces the FPN."""

    def forward(self, features):
        self.finest = features[0]
        return dict(zip(["P2", "P3", "P4", "P5"], [features[1], *features[1:]], strict=True))


class PanopticFeature(nn.Module):
    """Replaces the generator: +10 in the channel of a cell's own region, −10 in the others."""

    def __init__(self, fpn):
        super().__init__()
        self.fpn = [fpn]

    def forward(self, levels, windows, c2):
        return 20 * self.fpn[0].finest[:, :REGIONS] - 10


def rigged_model(kind="all", **inference):
    """All weights are set by hand, so that the network reproduces an image in the colours above."""
    sampling = FilterSampling(
        in_channels=REGIONS + 1,
        num_things=2,
        coordinates=Coordinates(),
        num_convs=0,
        filter_channels=REGIONS,
        feature_channels=REGIONS,
        kernel=1,
    )
    sampling.class_head = nn.Conv2d(REGIONS + 1, 2, 1)
    sampling.filter_head = nn.Conv2d(REGIONS + 3, REGIONS, 1)
    for parameter in sampling.parameters():
        nn.init.zeros_(parameter)
    for region, thing in enumerate([0, 0, 1]):
        sampling.class_head.weight.data[thing, region] = 10.0  # the class of the region …
    sampling.class_head.weight.data[:, REGIONS] = 8.0  # … where green marks it
    sampling.class_head.bias.data[:] = -15.0
    sampling.filter_head.weight.data[:, :REGIONS, 0, 0] = torch.eye(REGIONS)  # the filter asks for its own region
    sampling.fc.weight.data = torch.eye(REGIONS)
    shot = SingleShot(num_stuff=LabelSpace(kind, 2, 3).num_outputs, feature_channels=REGIONS, kernel=1)
    nn.init.zeros_(shot.weight)
    regions = {"all": [[0, 1], [2], [3], [4], [5]], "stuff+thing": [[3], [4], [5], [0, 1, 2]], "stuff": [[3], [4], [5]]}
    for output, members in enumerate(regions[kind]):
        shot.weight.data[output, members] = 1.0
        shot.bias.data[output] = 10.0 * (len(members) - 1)
    fpn = PassOn()
    network = SPINet(
        backbone=ReadColours(),
        fpn=fpn,
        filter_sampling=sampling,
        filter_levels="2-5",
        panoptic_feature=PanopticFeature(fpn),
        feature_levels="2-5",
        single_shot=shot,
    )
    config = Config(
        objective=ObjectiveConfig(semantic_classes=kind),
        inference=InferenceConfig(**{"min_stuff_area": 0.0, "precision": "fp32"} | inference),
    )
    return SPINetModel(network, config, make_categories())


MARKED = 255  # logit 10 + 8 − 15 = 3, confidence 0.95
WEAK = 140  # logit −0.6, confidence 0.35: only for AP


def paint(height=55, width=90, green=(MARKED, MARKED, MARKED)):
    """Vertical strips: instances 0, 1, 2 and all three stuff classes; each instance marked at one cell."""
    strips = [(3, 16), (0, 16), (1, 12), (5, 12), (2, 20), (4, width - 76)]
    region = np.concatenate([np.full(wide, index) for index, wide in strips])
    image = np.zeros((height, width, 3), np.uint8)
    image[..., 0] = 30 * region
    for instance, left in enumerate((16, 32, 56)):
        image[16:24, left : left + 8, 1] = green[instance]  # the cell (2, left / 8) at stride 8
    return image, np.broadcast_to(region, (height, width))


@pytest.mark.parametrize("kind", KINDS)
def test_prediction_of_a_rigged_network(kind):
    model = rigged_model(kind)
    image, region = paint()
    found = predict(model, image, instances=True)
    assert_consistent(found.ids, found.segments, model.categories)
    categories = {0: 10, 1: 10, 2: 11, 3: 20, 4: 21, 5: 22}
    for index, category in categories.items():
        ids = set(found.ids[region == index].tolist())
        assert len(ids) == 1, index  # the whole strip is a single segment …
        segment = found.segments[ids.pop() - 1]
        assert segment["category_id"] == category
        assert segment["area"] == (region == index).sum()  # … and nothing else is in it
        if index < 3:
            assert segment["score"] == pytest.approx(1 / (1 + np.exp(-3)), rel=1e-3)
            left = int(np.nonzero(region[0] == index)[0][0])
            assert segment["bbox"] == [left, 0, int((region[0] == index).sum()), 55]
    assert len(found.segments) == 6
    if kind != "stuff":
        expected = {"all": [0, 0, 1, 2, 3, 4], "stuff+thing": [3, 3, 3, 0, 1, 2]}[kind]
        assert np.array_equal(found.semantic, np.array(expected)[region])
    assert found.ids.dtype == np.int32
    assert found.ids.shape == found.semantic.shape == (55, 90)
    assert found.network_seconds > 0 < found.post_seconds


@pytest.mark.parametrize(("height", "width"), [(55, 90), (64, 96), (200, 131)])
def test_class_map_of_a_rigged_network(height, width):
    """The class head is confident at the marks; padding does not move them."""
    image, _ = paint(height, width)
    found = predict(rigged_model("stuff+thing"), image, instances=True)
    assert found.class_map.shape == (height, width)
    for left, thing in ((16, 0), (32, 0), (56, 1)):
        assert (found.class_map[18:22, left + 2 : left + 6] == thing).all()
    assert predict(rigged_model("all"), image, instances=True).class_map is None


def test_instances_for_ap_go_below_the_threshold():
    model = rigged_model()
    image, region = paint(green=(MARKED, WEAK, MARKED))
    found = predict(model, image, instances=True)
    assert sorted(s["category_id"] for s in found.segments if s["isthing"]) == [10, 11]
    scores = [instance["score"] for instance in found.instances]
    assert scores == sorted(scores, reverse=True)
    weak = [i for i in found.instances if np.array_equal(i["mask"], region == 1)]
    assert weak[0]["score"] == pytest.approx(1 / (1 + np.exp(5 - 8 * WEAK / 255)), rel=1e-3)
    assert weak[0]["category_id"] == 10
    # in the map, the region of instance 1 is no longer a thing
    assert not any(found.segments[i - 1]["isthing"] for i in set(found.ids[region == 1].tolist()) - {0})
    assert predict(model, image).instances == []
    assert np.array_equal(predict(model, image).ids, found.ids)


def test_no_candidate_at_all():
    model = rigged_model()
    image, region = paint(green=(0, 0, 0))
    found = predict(model, image, instances=True)
    assert not any(segment["isthing"] for segment in found.segments)
    assert found.instances == []
    assert (found.ids[region > 2] > 0).all()
    assert_consistent(found.ids, found.segments, model.categories)


# --- a random network -------------------------------------------------------------------------------------------------


def random_model(kind="all", things=2, **inference):
    """Untrained, with scores around the threshold and masks of both signs."""
    torch.manual_seed(0)
    config = replace(
        TINY,
        model=ModelConfig(
            backbone="resnet10t",
            norm="group",
            pretrained=False,
            fpn_channels=64,
            filter_channels=16,
            feature_channels=16,
            head_convs=1,
        ),
        objective=ObjectiveConfig(semantic_classes=kind),
        inference=InferenceConfig(**{"precision": "fp32"} | inference),
    )
    model = build_model(config, make_categories(things))
    model.network.eval().requires_grad_(False)
    nn.init.normal_(model.network.filter_sampling.class_head[-1].weight, std=0.2)
    nn.init.zeros_(model.network.filter_sampling.class_head[-1].bias)
    nn.init.normal_(model.network.filter_sampling.fc.weight, std=0.3)
    return model


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("height", "width"), [(1, 1), (20, 33), (64, 96), (97, 130), (200, 31)])
def test_an_image_of_any_size(height, width, kind):
    model = random_model(kind)
    found = predict(model, random_image(height, width), instances=True)
    assert found.ids.shape == found.semantic.shape == (height, width)
    assert_consistent(found.ids, found.segments, model.categories)
    assert found.semantic.min() >= 0
    assert found.semantic.max() < LabelSpace(kind, 2, 3).num_outputs
    assert all(instance["mask"].shape == (height, width) for instance in found.instances)
    if height * width > 5000:
        assert any(segment["isthing"] for segment in found.segments)
        assert len(found.instances) > 3


@pytest.mark.parametrize("duplicates", ["matrix", "mask", "none"])
@pytest.mark.parametrize("things", [1, 2])
def test_a_single_thing_class_and_every_rule_for_duplicates(things, duplicates):
    model = random_model("stuff+thing", things, duplicates=duplicates, peak=1, top=20)
    found = predict(model, random_image(64, 96), instances=True)
    assert_consistent(found.ids, found.segments, model.categories)
    assert len(found.instances) <= 20
    ids, segments = components(found, model.categories, model.config.inference, model.space)
    assert_consistent(ids, segments)


def test_the_picture_is_scaled_for_the_network_and_the_answer_back():
    model = random_model()
    model.config = replace(model.config, input=InputConfig(test_scale=64, max_long_side=90))
    sizes = []
    model.network.register_forward_pre_hook(lambda module, inputs: sizes.append(tuple(inputs[0].shape[2:])))
    found = predict(model, random_image(128, 200))
    assert sizes == [(58, 90)]
    assert found.ids.shape == (128, 200)
    assert_consistent(found.ids, found.segments, model.categories)


def test_reduced_precision():
    image = random_image(64, 96)
    model = random_model()
    exact = predict(model, image)
    model.config = replace(model.config, inference=InferenceConfig(precision="bf16"))
    reduced = predict(model, image)
    assert_consistent(reduced.ids, reduced.segments, model.categories)
    assert (reduced.semantic == exact.semantic).mean() > 0.9


def test_prediction_repeats_itself():
    model, image = random_model(), random_image(70, 90)
    a, b = predict(model, image), predict(model, image)
    assert np.array_equal(a.ids, b.ids)
    assert a.segments == b.segments
    assert not np.array_equal(a.ids, predict(model, random_image(70, 90, seed=1)).ids)


@pytest.mark.parametrize(
    "rules",
    [{"mask_threshold": 0.7}, {"min_stuff_area": 0.3}, {"threshold": 0.9999}, {"overlap": 0.9, "duplicates": "none"}],
)
def test_the_network_runs_once_for_any_rules(rules):
    """`postprocess` with other rules equals the prediction of a model with these rules; the network is the same."""
    model, image = random_model(), random_image(70, 90)
    changed = replace(model, config=replace(model.config, inference=replace(model.config.inference, **rules)))
    runs = []
    model.network.register_forward_pre_hook(lambda *_: runs.append(1))
    encoded = run_network(model, image)
    before, found, after = (
        postprocess(model, encoded, config, instances=True) for config in (None, changed.config.inference, None)
    )
    assert len(runs) == 1
    expected = predict(changed, image, instances=True)
    assert np.array_equal(found.ids, expected.ids)
    assert found.segments == expected.segments
    assert len(found.instances) == len(expected.instances)
    assert not np.array_equal(found.ids, before.ids)
    assert np.array_equal(after.ids, before.ids)


def test_candidates_say_where_their_filters_were_sampled():
    model = rigged_model()
    image, region = paint()
    encoded = run_network(model, image)
    candidates, stuff_logits = find_candidates(model, encoded)
    finest = candidates[candidates.locations.level == 0]
    assert sorted(finest.locations.x.tolist()) == [2, 4, 7]  # columns of the marks, stride 8
    masks = Resampler.of(encoded).whole(finest.logits.whole()) > 0
    for mask, x in zip(masks, finest.locations.x.tolist(), strict=True):
        assert np.array_equal(mask.numpy(), region == {2: 0, 4: 1, 7: 2}[x])
    assert stuff_logits.shape[1:] == candidates.logits.size == encoded.features.phi.shape[2:]
    assert len(find_candidates(model, encoded, threshold=0.99)[0].labels) == 0


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((3, 8, 8), np.uint8),
        np.zeros((4, 4, 3), np.float32),
        np.zeros((0, 4, 3), np.uint8),
    ],
)
def test_what_is_no_image_is_refused(image):
    with pytest.raises(ValueError, match="uint8"):
        predict(rigged_model(), image)


# --- weights on disk --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_saved_and_loaded_weights_predict_the_same(tmp_path, kind):
    model = random_model(kind, threshold=0.47)
    save_model(model, tmp_path / "model.safetensors")
    loaded = load_model(tmp_path / "model.safetensors")
    assert loaded.config == model.config
    assert loaded.categories == model.categories
    assert not loaded.network.training
    image = random_image(70, 90)
    before, after = (predict(m, image, instances=True) for m in (model, loaded))
    assert np.array_equal(before.ids, after.ids)
    assert before.segments == after.segments
    assert [i["score"] for i in before.instances] == [i["score"] for i in after.instances]
    assert len(before.segments) > 2


def test_batch_statistics_are_saved_too(tmp_path):
    model = random_model()
    model.config = replace(model.config, model=replace(model.config.model, norm="batch"))
    model = build_model(model.config, model.categories)
    model.network.train()(torch.randint(0, 256, (2, 3, 64, 64)).byte())
    model.network.eval()
    save_model(model, tmp_path / "model.safetensors")
    loaded = load_model(tmp_path / "model.safetensors")
    image = random_image(70, 90)
    assert np.array_equal(predict(model, image).semantic, predict(loaded, image).semantic)
    for name, value in model.network.state_dict().items():
        assert torch.equal(value, loaded.network.state_dict()[name]), name


def test_files_that_are_no_weights_are_named(tmp_path):
    path = tmp_path / "model.safetensors"
    with pytest.raises(WeightsError, match=r"model\.safetensors: no such file"):
        load_model(path)
    save_model(random_model(), path)
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], whole[:5], b"", b"not weights at all" * 100):
        path.write_bytes(content)
        with pytest.raises(WeightsError, match=r"model\.safetensors: not a safetensors file"):
            load_model(path)
    save_file({"weight": torch.zeros(2)}, path)
    with pytest.raises(WeightsError, match=r"model\.safetensors: .*not saved by spinet"):
        load_model(path)


# --- the reference ----------------------------------------------------------------------------------------------------


def assert_alike(found, ids, segments):
    """The maps of the fast path and of the reference are equal, except for rounding at the borders of masks."""
    assert [s["category_id"] for s in found.segments] == [s["category_id"] for s in segments]
    for one, other in zip(found.segments, segments, strict=True):
        assert one.get("score", 0.0) == pytest.approx(other.get("score", 0.0), rel=1e-4)
        assert one["area"] == pytest.approx(other["area"], rel=1e-3, abs=3)
    assert (found.ids == ids).mean() > 0.9995


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [(64, 96), (97, 130)])
def test_the_fast_path_is_the_reference(kind, size):
    """Masks of an untrained network overlap in many ways: each rule drops some."""
    model, image = random_model(kind, threshold=0.4, top=25, min_stuff_area=0.01), random_image(*size)
    ids, segments = reference.predict(model, image)
    assert_alike(predict(model, image), ids, segments)
    candidates, _ = find_candidates(model, run_network(model, image))
    things = sum("score" in segment for segment in segments)
    assert 0 < things < int((candidates.kept >= 0.5).sum()) < len(candidates.labels)


def test_the_fast_path_is_the_reference_on_a_street():
    model, image = load_model(), render_scene(7, 0, (128, 256), "val")[0]
    rules = replace(
        model.config.inference,
        precision="fp32",
        connected=False,
        fill_threshold=None,
        agreement=None,
        contested="score",
    )
    model = replace(model, config=replace(model.config, inference=rules))
    ids, segments = reference.predict(model, image)
    assert_alike(predict(model, image), ids, segments)
    assert sum("score" in segment for segment in segments) > 1
