"""Figures 3 and 4: their content comes from the network, the heads and the image, and is readable."""

from dataclasses import replace
from itertools import combinations, pairwise

import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from matplotlib.path import Path
from matplotlib.transforms import Bbox

from spinet.config import COCO_R50, TINY, ModelConfig, ObjectiveConfig
from spinet.data.label_space import LabelSpace
from spinet.figures.boxes import in_millions, size_of
from spinet.figures.components import _around, _choose, feature_picture, figure_3, figure_4, principal_axes
from spinet.figures.style import save, to_png
from spinet.model.spinet import SPINet
from spinet.objective.objective import Objective
from spinet.objective.targets import TargetBuilder

CITYSCAPES = ModelConfig()
CAR, PERSON = 2, 0


def network(config=CITYSCAPES, device="meta"):
    with torch.device(device):
        return SPINet.from_config(config, num_things=8, num_stuff=19, weights_follow=True)


def street(channels=8, seed=0):
    """An image with a road, two cars and a person, φ, and the targets, as arguments of `figure_4`."""
    segment_map = torch.ones(64, 128, dtype=torch.int32)
    segment_map[8:40, 8:48] = 2
    segment_map[16:36, 60:90] = 3
    segment_map[12:40, 100:112] = 4
    labels = torch.tensor([8, CAR, CAR, PERSON])
    builder = TargetBuilder(strides=[8, 8, 16, 32], space=LabelSpace("all", 8, 11))
    targets = builder(segment_map[None], [labels], [torch.zeros(4, dtype=torch.bool)], [seed])
    generator = torch.Generator().manual_seed(0)
    image = torch.randint(0, 256, (3, 64, 128), generator=generator, dtype=torch.uint8)
    return {"image": image, "phi": torch.randn(channels, 16, 32, generator=generator), "targets": targets}


def heads(channels=8):
    return Objective(config=ObjectiveConfig(), feature_channels=channels)


FIGURES = {
    "3, Cityscapes": figure_3(network(), (1024, 2048)),
    "3, COCO": figure_3(network(COCO_R50.model), (800, 1333)),
    "3, tiny": figure_3(network(TINY.model), (256, 512)),
    "3, levels 3-7": figure_3(network(replace(CITYSCAPES, filter_levels="3-7", feature_levels="3-7")), (512, 1024)),
    "4": figure_4(heads(), **street()),
    "4, wide": figure_4(heads(256), **street(256)),
}
every_figure = pytest.mark.parametrize("name", FIGURES)


def words(figure):
    return [text.get_text() for text in figure.axes[0].texts if text.get_text()]


def extents(figure):
    """The texts with their rectangles, pixels."""
    renderer = FigureCanvasAgg(figure).get_renderer()
    return [(t.get_text(), t.get_window_extent(renderer)) for t in figure.axes[0].texts if t.get_text()]


@every_figure
def test_no_text_is_cut_off_or_runs_into_another(name):
    found = extents(FIGURES[name])
    paper = FIGURES[name].bbox
    assert len(found) > 20
    for text, place in found:
        assert paper.x0 < place.x0 < place.x1 < paper.x1, text
        assert paper.y0 < place.y0 < place.y1 < paper.y1, text
    for (text, a), (other, b) in combinations(found, 2):
        assert not Bbox.intersection(a, b), (text, other)


@every_figure
def test_texts_stay_inside_their_boxes(name):
    boxes = [patch.get_window_extent() for patch in FIGURES[name].axes[0].patches if isinstance(patch, FancyBboxPatch)]
    for text, place in extents(FIGURES[name]):
        for box in boxes:
            if box.contains((place.x0 + place.x1) / 2, (place.y0 + place.y1) / 2):
                assert box.x0 < place.x0 < place.x1 < box.x1, text
                assert box.y0 < place.y0 < place.y1 < box.y1, text


@every_figure
def test_no_line_runs_through_a_text(name):
    axes = FIGURES[name].axes[0]
    arrows = [patch for patch in axes.patches if isinstance(patch, FancyArrowPatch)]
    segments = [Path(s) for arrow in arrows for s in pairwise(axes.transData.transform(arrow._path_original.vertices))]
    assert len(segments) > 10
    for text, place in extents(FIGURES[name]):
        assert not any(segment.intersects_bbox(place, filled=False) for segment in segments), text


@every_figure
def test_texts_can_be_read_in_print(name):
    assert min(text.get_fontsize() for text in FIGURES[name].axes[0].texts if text.get_text()) >= 6


@pytest.mark.parametrize(
    ("config", "size"), [(CITYSCAPES, (256, 512)), (TINY.model, (128, 320)), (COCO_R50.model, (96, 64))]
)
def test_figure_3_says_what_a_forward_pass_gives(config, size):
    model = network(config)
    seen = {}
    model.panoptic_feature.register_forward_pre_hook(lambda _, given: seen.update(levels=given[0]))
    features = model.eval()(torch.zeros(1, 3, *size, device="meta"))
    shown = words(figure_3(model, size))
    for level in seen["levels"]:
        assert size_of(level.shape) in shown
        factor = seen["levels"][0].shape[-1] // level.shape[-1]
        assert (f"resize ×{factor}" in shown) == (factor > 1)
    assert size_of(features.phi.shape) in shown
    assert size_of((2 + 4 * config.coordinate_frequencies, *seen["levels"][0].shape[-2:])) in shown
    parts = [*model.panoptic_feature.levels, *model.panoptic_feature.merge, model.panoptic_feature.deconvolution]
    for part in parts:
        assert any(in_millions(part) in text for text in shown)


def test_figure_3_shows_as_many_lanes_as_levels():
    for config, levels in ((CITYSCAPES, 4), (COCO_R50.model, 5)):
        shown = words(figure_3(network(config), (256, 512)))
        assert sum(text.startswith("$P_") for text in shown) == levels
        assert sum("conv" in text and "deconv" not in text for text in shown) == levels + 2


def test_figure_3_computes_nothing_and_leaves_no_hook():
    model = network()
    figure_3(model, (256, 512))
    assert all(parameter.is_meta for parameter in model.parameters())
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in model.modules())


@pytest.mark.parametrize("channels", [8, 256])
def test_figure_4_says_what_the_heads_have(channels):
    shown = words(figure_4(heads(channels), **street(channels)))
    assert f"φ: 16 × 32 × {channels}" in shown
    assert f"{channels} → {channels}" in shown
    assert shown.count(f"{channels} numbers") == 3
    assert {"16 × 32 × 16", "64 × 128 × 3", "64 × 128 × 1", "×4"} <= set(shown)
    for head in (heads(channels).intra.fc, heads(channels).inter.conv):
        assert in_millions(head) in shown


def test_figure_4_shows_the_largest_instance_and_its_largest_negative():
    targets = street()["targets"].images[0]
    assert _choose(targets) == (0, 1)  # the large car and the small car, of the same class
    targets.negatives = torch.zeros(3, 3, dtype=torch.bool)
    targets.negatives[2, 0] = targets.negatives[1, 0] = targets.negatives[1, 2] = True
    assert _choose(targets) == (1, 0)


def test_figure_4_needs_a_triplet():
    arguments = street()
    arguments["targets"].images[0].negatives.fill_(False)
    with pytest.raises(ValueError, match="two things"):
        figure_4(heads(), **arguments)


def test_figure_4_draws_what_it_is_given():
    drawn = to_png(FIGURES["4"])
    other = street()
    other["phi"] = -other["phi"].flip(1)
    assert to_png(figure_4(heads(), **other)) != drawn
    assert to_png(figure_4(heads(), **street(seed=1))) != drawn  # other halves


def test_the_same_objects_give_the_same_bytes(tmp_path):
    for turn in ("a", "b"):
        save(figure_3(network(), (1024, 2048)), tmp_path / turn, "figure_3", sources=[])
        save(figure_4(heads(), **street()), tmp_path / turn, "figure_4", sources=[])
    files = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert len(files) == 6
    for name in files:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_alike_vectors_have_alike_colours():
    generator = torch.Generator().manual_seed(0)
    kinds = torch.randn(5, 16, generator=generator)
    which = torch.randint(0, 5, (12, 20), generator=generator)
    noise = 0.01 * torch.randn(16, 12, 20, generator=generator)
    colors = feature_picture(kinds[which].permute(2, 0, 1) + noise)
    assert colors.shape == (12, 20, 3)
    assert 0 <= colors.min() < 0.3 < 0.7 < colors.max() <= 1
    means = np.stack([colors[which == kind].mean(0) for kind in range(5)])
    within = max(np.abs(colors[which == kind] - means[kind]).max() for kind in range(5))
    between = min(np.abs(a - b).max() for a, b in combinations(means, 2))
    assert within < 0.1 < between


def test_colours_know_no_scale_no_offset_and_no_order_of_channels():
    generator = torch.Generator().manual_seed(0)
    phi = torch.randn(6, 9, 10, generator=generator) * torch.tensor([5.0, 4.0, 3.0, 1.0, 0.5, 0.1])[:, None, None]
    colors = feature_picture(phi)
    moved = 3 * phi[torch.randperm(6, generator=generator)] + 7
    np.testing.assert_allclose(feature_picture(moved), colors, atol=1e-6)


def test_the_axes_of_one_feature_map_may_colour_another():
    generator = torch.Generator().manual_seed(0)
    phi = torch.randn(5, 8, 9, generator=generator) * torch.tensor([1, 9, 3, 0.1, 5])[:, None, None]
    axes = principal_axes(phi)
    assert axes.abs().argmax(0).tolist() == [1, 4, 2]
    torch.testing.assert_close(axes.T @ axes, torch.eye(3, dtype=torch.double))
    assert np.array_equal(feature_picture(phi, axes), feature_picture(phi))
    other = phi.flip(0)
    along = np.tensordot(axes.numpy(), other.double().numpy(), ((0,), (0,)))[0]
    red = feature_picture(other, axes)[..., 0]
    inside = (red > 0) & (red < 1)
    assert np.corrcoef(red[inside], along[inside])[0, 1] > 1 - 1e-9


def test_a_feature_without_variation_is_grey():
    assert (feature_picture(torch.ones(4, 3, 5)) == 0.5).all()


@pytest.mark.parametrize("corners", [(0, 0, 3, 4), (10, 28, 16, 32), (2, 0, 4, 32), (0, 15, 16, 16), (5, 9, 12, 20)])
def test_the_window_holds_the_instances(corners):
    top, left, bottom, right = corners
    mask = torch.zeros(16, 32, dtype=torch.bool)
    mask[top:bottom, left:right] = True
    rows, columns = _around(mask)
    assert mask[rows, columns].sum() == mask.sum()
    assert 0 <= rows.start < rows.stop <= 16
    assert 0 <= columns.start < columns.stop <= 32


def test_the_window_has_the_proportions_of_the_lanes():
    mask = torch.zeros(100, 200, dtype=torch.bool)
    mask[40:60, 90:95] = True
    rows, columns = _around(mask)
    assert (columns.stop - columns.start) / (rows.stop - rows.start) == pytest.approx(1.7, abs=0.05)
