"""Clusters in the Panoptic-Feature, tested on features with known clusters."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from statistics import fmean
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from spinet.config import TINY
from spinet.data.segments import Categories, Category, Sample
from spinet.evaluation import clustering
from spinet.evaluation.borders import BorderScore
from spinet.evaluation.clustering import (
    FeatureMap,
    compute_feature_map,
    contour_map,
    embed,
    feature_metrics,
    pool,
    purity,
    quarter,
    sample_pixels,
)
from spinet.inference.predict import run_network
from spinet.model.spinet import Features
from spinet.objective.auxiliary import InterClassContour, soft_contour
from spinet.objective.objective import Objective
from spinet.system import NetworkOutput
from spinet.systems import build_model
from spinet.weights import WeightsError, load_model, load_objective, save_objective

THINGS, STUFF = 3, 4
CATEGORIES = Categories.of([Category(i, str(i), i < THINGS) for i in range(THINGS + STUFF)])
MODEL = build_model(
    replace(
        TINY,
        model=replace(TINY.model, fpn_channels=16, filter_channels=16, feature_channels=16, head_convs=1),
        input=replace(TINY.input, test_scale=None),
    ),
    CATEGORIES,
)
MODEL.network.eval().requires_grad_(False)


@pytest.fixture
def sample(scene):
    segment_map, labels, crowd = scene(seed=3, height=128, width=160, things=6, stuff=3)
    labels[3:] = torch.tensor([0, 0, 0, 1, 1, 2])  # two classes with several instances, one with one
    image = torch.randint(0, 256, (3, 128, 160), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return Sample(image_id="a", image=image, segment_map=segment_map, labels=labels, crowd=crowd)


def arranged(monkeypatch, sample, vectors, noise=0.01, semantic=None):
    """A network whose φ at each cell is its segment's vector, [K + 1, D] with void first, plus noise."""
    cells = sample.segment_map[2::4, 2::4]
    generator = torch.Generator().manual_seed(1)
    phi = vectors[cells].permute(2, 0, 1) + noise * torch.randn(vectors.shape[1], *cells.shape, generator=generator)
    encoded = NetworkOutput(Features([], [], phi[None], phi[None]), sample.size, sample.size, 0.0)
    label_map = torch.cat([torch.tensor([0]), sample.labels])[sample.segment_map].numpy()
    monkeypatch.setattr(clustering, "run_network", lambda model, image: encoded)
    answer = SimpleNamespace(semantic=label_map if semantic is None else semantic)
    monkeypatch.setattr(clustering, "postprocess", lambda model, encoded: answer)
    return encoded


def one_hot(numbers, scale=10.0):
    return scale * F.one_hot(F.pad(torch.as_tensor(numbers), (1, 0)), 16).float()


def test_a_vector_for_every_instance_is_perfect(sample, monkeypatch):
    arranged(monkeypatch, sample, one_hot(torch.arange(1, 10)))
    result = feature_metrics(MODEL, [sample])
    assert result["silhouette_instances"] > 0.98
    assert result["distance_ratio"] < 0.02
    assert result["triplet_accuracy"] == result["pixel_accuracy"] == 1
    assert result["silhouette_classes"] < 0.8  # instances of a class are as far apart as classes
    assert (result["images"], result["instances"]) == (1, 5)
    assert result["pixel_chance"] == pytest.approx(0.4, abs=0.03)  # 3 of one class and 2 of another
    assert result["contour_f"] is None


def test_a_vector_for_every_class_tells_no_instances_apart(sample, monkeypatch):
    arranged(monkeypatch, sample, one_hot(sample.labels + 1))
    result = feature_metrics(MODEL, [sample], pixels=200)
    assert result["silhouette_classes"] > 0.98
    assert result["silhouette_instances"] < 0.5
    assert result["distance_ratio"] == pytest.approx(1, abs=0.02)
    results = [feature_metrics(MODEL, [sample], pixels=200, seed=seed) for seed in range(20)]
    guessed, chance = (fmean(r[name] for r in results) for name in ("pixel_accuracy", "pixel_chance"))
    assert guessed == pytest.approx(chance, abs=0.05)


def test_what_lies_between_the_quarters_of_the_deconvolution_is_not_measured(sample, monkeypatch):
    encoded = arranged(monkeypatch, sample, one_hot(torch.arange(1, 10)), noise=2.0)
    before = feature_metrics(MODEL, [sample])
    encoded.features.phi[:, :, ::2, 1::2] += 30.0 * torch.arange(16)[:, None, None]
    encoded.features.phi[:, :, 1::2] *= -3.0
    assert feature_metrics(MODEL, [sample]) == before


def test_without_two_instances_of_a_class_nothing_is_compared(sample, monkeypatch):
    sample.labels[3:] = torch.tensor([0, 1, 2, 0, 1, 2])
    sample.crowd[6:] = True
    arranged(monkeypatch, sample, one_hot(torch.arange(1, 10)))
    result = feature_metrics(MODEL, [sample])
    names = ("distance_ratio", "triplet_accuracy", "pixel_accuracy", "pixel_chance")
    assert [result[name] for name in names] == [None] * 4
    assert result["instances"] == 0
    assert result["silhouette_instances"] > 0.98  # of three classes
    assert feature_metrics(MODEL, [])["silhouette_classes"] is None


def test_borders_of_the_semantic_map_count_within_the_tolerance(sample, monkeypatch):
    sample.segment_map[:, -40:] = 0
    truth = torch.cat([torch.tensor([0]), sample.labels])[sample.segment_map].numpy()
    vectors = one_hot(sample.labels)
    scores = []
    for shift in (0, 1, 6):
        arranged(monkeypatch, sample, vectors, semantic=np.roll(truth, shift, axis=1))
        scores.append(feature_metrics(MODEL, [sample])["border_f"])
    assert scores[0] == 1
    assert 0.97 < scores[1] <= 1
    assert scores[2] < 0.7


def test_contour_head_is_read_at_every_pixel(sample, monkeypatch):
    label_map = F.pad(sample.labels, (1, 0), value=-1)[sample.segment_map]
    contour = soft_contour(label_map, 0)
    head = InterClassContour(feature_channels=16)
    head.conv.weight.data = torch.eye(16)[:, :, None, None]
    head.conv.bias.data = torch.zeros(16)
    encoded = arranged(monkeypatch, sample, one_hot(sample.labels))
    encoded.features.phi = encoded.features.phi_stuff = F.pixel_unshuffle((20 * contour - 10)[None, None], 4)
    assert np.array_equal(contour_map(head, encoded) > 0.5, contour.numpy() > 0)
    assert feature_metrics(MODEL, [sample], contour=head)["contour_f"] == pytest.approx(1)
    nothing = torch.zeros_like(encoded.features.phi)
    encoded.features.phi = encoded.features.phi_stuff = nothing  # a contour everywhere, or nowhere
    true = float(contour.mean())
    flat = feature_metrics(MODEL, [sample], contour=head, tolerance=0)
    assert flat["contour_f"] == pytest.approx(2 * true / (1 + true), abs=0.1)
    assert flat["distance_ratio"] is None


def test_cells_are_drawn_evenly_and_alike_for_every_feature(sample, monkeypatch):
    arranged(monkeypatch, sample, one_hot(torch.arange(1, 10)))
    field = compute_feature_map(MODEL, sample)
    drawn = sample_pixels(field, pixels=5, seed=0)
    counts = np.bincount(drawn.segment)
    assert set(counts) == {5}
    row, column = drawn.cell.T
    assert np.array_equal(field.segment_map[row, column], drawn.segment + 1)
    assert np.array_equal(sample.labels.numpy()[drawn.segment], drawn.label)
    assert np.array_equal(field.phi[:, row, column].T, drawn.phi)
    other = sample_pixels(FeatureMap(field.phi * 2, field.segment_map, field.labels), pixels=5, seed=0)
    assert np.array_equal(other.cell, drawn.cell)
    assert not np.array_equal(sample_pixels(field, pixels=5, seed=1).cell, drawn.cell)
    mask = np.zeros(field.segment_map.shape, dtype=bool)
    mask[::2] = True
    assert not (sample_pixels(field, pixels=5, seed=0, mask=mask).cell[:, 0] % 2).any()


@pytest.mark.parametrize("scale", [None, 64])
def test_a_cell_shows_what_lies_under_its_centre(sample, scale):
    """The network gets the image resized and padded; the field ends at the border of the image."""
    model = replace(MODEL, config=replace(MODEL.config, input=replace(MODEL.config.input, scale_unit="short_side")))
    model.config = replace(model.config, input=replace(model.config.input, test_scale=scale))
    part = sample.crop(0, 0, 100, 150)
    field = compute_feature_map(model, part)
    factor = 1 if scale is None else 64 / 100
    height, width = int(100 * factor) // 4, round(150 * factor) // 4
    assert field.phi.shape == (16, height, width)
    y, x = 7, 11
    truth = part.segment_map[int((y + 0.5) * 4 / factor), int((x + 0.5) * 4 / factor)]
    assert field.segment_map[y, x] == truth
    encoded = run_network(model, part.pixels)
    assert np.allclose(field.phi, encoded.features.phi[0, :, :height, :width].float())


def test_cells_of_several_images_keep_their_image_and_their_segments_apart(sample, monkeypatch):
    arranged(monkeypatch, sample, one_hot(torch.arange(1, 10)))
    field = compute_feature_map(MODEL, sample)
    first, second = (sample_pixels(field, pixels=count, seed=0) for count in (3, 5))
    both = pool([first, second])
    assert np.array_equal(both.image, np.repeat([0, 1], [len(first.label), len(second.label)]))
    assert np.array_equal(both[both.image == 1].phi, second.phi)
    assert np.array_equal(both[both.image == 0].segment, first.segment)
    assert not set(both.segment[both.image == 0]) & set(both.segment[both.image == 1])
    assert len(np.unique(both.segment)) == 2 * len(np.unique(first.segment))


def test_purity_is_one_for_separate_clusters_and_a_guess_for_random_ones():
    generator = np.random.default_rng(0)
    cluster = np.repeat(np.arange(4), 50)
    vectors = generator.standard_normal((200, 8))
    assert purity(vectors + 100 * cluster[:, None], cluster) == 1
    assert purity(vectors, cluster) == pytest.approx(49 / 199, abs=0.05)
    pairs = np.array([[0.0], [1.0], [10.0], [11.0]])
    assert purity(pairs, np.array([0, 0, 1, 2]), neighbors=1) == 0.5


def test_border_score_counts_both_ways():
    true, found, unknown = (np.zeros((9, 40), dtype=bool) for _ in range(3))
    true[:, 10] = True
    found[:4, 12] = True  # 4 of 9 rows, 2 pixels off: a disc of 2 pixels reaches sideways no other row
    found[:, 30] = True  # wrong
    score = BorderScore(tolerance=2, maps=2)
    score.update(true, [found, true], unknown)
    precision, recall = 4 / 13, 4 / 9
    assert score.result() == pytest.approx([2 * precision * recall / (precision + recall), 1])
    unknown[:, 31] = True
    score = BorderScore(tolerance=2)
    score.update(true, [found], unknown)
    assert score.result() == pytest.approx([2 * recall / (1 + recall)])
    assert BorderScore(tolerance=2).result() is None


def test_map_keeps_groups_and_is_the_same_twice():
    generator = np.random.default_rng(0)
    centres = 20 * generator.standard_normal((3, 32))
    phi = (centres.repeat(40, 0) + generator.standard_normal((120, 32))).astype(np.float32)
    points = embed(phi, neighbors=10)
    groups = points.reshape(3, 40, 2)
    spread = np.linalg.norm(groups - groups.mean(1, keepdims=True), axis=-1).max()
    middles = groups.mean(1)
    assert min(np.linalg.norm(middles[i] - middles[j]) for i, j in ((0, 1), (0, 2), (1, 2))) > 1.5 * spread
    assert np.array_equal(points, embed(phi, neighbors=10))
    assert not np.array_equal(points, embed(phi, neighbors=10, seed=1))
    with pytest.raises(ValueError, match="give more vectors"):
        embed(phi[:10], neighbors=10)


def test_heads_of_the_auxiliary_tasks_are_kept(tmp_path):
    torch.manual_seed(0)
    objective = Objective(config=MODEL.config.objective, feature_channels=16)
    path = tmp_path / "auxiliary.safetensors"
    save_objective(objective, MODEL.config, path)
    loaded = load_objective(path)
    for name, tensor in objective.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor)
    assert len(objective.state_dict()) == 4
    with pytest.raises(WeightsError, match="weights of the auxiliary heads"):
        load_model(path)


def test_a_quarter_of_the_cells_comes_from_one_quarter_of_the_deconvolution():
    """If the features before the deconvolution are constant, φ is constant within each quarter only."""
    generator = deepcopy(MODEL.network.panoptic_feature)
    torch.nn.init.normal_(generator.deconvolution.weight)  # its taps are equal initially
    phi = generator.deconvolution(torch.ones(1, generator.deconvolution.in_channels, 4, 6))[0].detach().numpy()
    field = FeatureMap(phi, np.ones(phi.shape[1:], dtype=int), np.array([0]))
    inside = quarter(field)
    assert inside.mean() == 0.25
    assert np.allclose(phi[:, inside], phi[:, :1, :1].reshape(-1, 1), atol=1e-6)
    assert (np.abs(phi[:, ~inside] - phi[:, :1, :1].reshape(-1, 1)).max(0) > 1e-3).all()
    drawn = sample_pixels(field, pixels=5, seed=0, mask=inside)
    assert (drawn.cell % 2 == 0).all()
