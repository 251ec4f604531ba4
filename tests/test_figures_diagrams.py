"""Figures 1 and 2: their content comes from the network, and nothing overlaps."""

from itertools import combinations, pairwise
from typing import get_args

import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from matplotlib.path import Path
from matplotlib.transforms import Bbox
from torch import nn

from spinet.config import COCO_R50, TINY, ModelConfig
from spinet.figures.boxes import in_millions, size_of
from spinet.figures.diagrams import Part, figure_1, figure_2
from spinet.figures.shapes import shapes
from spinet.figures.style import save
from spinet.model.filter_sampling import Locations
from spinet.model.spinet import SPINet

CITYSCAPES = ModelConfig()


def network(config=CITYSCAPES, *, things=8, stuff=19, device="meta"):
    with torch.device(device):
        return SPINet.from_config(config, num_things=things, num_stuff=stuff, weights_follow=True)


def diagrams():
    return {
        "1": figure_1(),
        "2, Cityscapes": figure_2(network(), (1024, 2048)),
        "2, COCO": figure_2(network(COCO_R50.model, things=80, stuff=54), (800, 1333)),
        "2, tiny": figure_2(network(TINY.model), (256, 512)),
        **{f"2, {part}": figure_2(network(), (1024, 2048), here=part) for part in TITLES},
        "2, COCO, single_shot": figure_2(network(COCO_R50.model, things=80, stuff=54), (800, 1333), here="single_shot"),
    }


TITLES = {
    "fpn": ["FPN §3.1", "$P_2$", "$P_5$"],
    "filter_sampling": ["Filter sampling module §3.2", "class head", "FC"],
    "panoptic_feature": ["Panoptic-Feature §3.3", "merge levels", "φ: "],
    "single_shot": ["thing filters", "stuff filters", "things: ", "stuff: "],
}
"""Beginnings of texts in each part of Fig. 2 that can be highlighted."""

DIAGRAMS = diagrams()


def texts(figure):
    return [text for text in figure.axes[0].texts if text.get_text()]


def extents(figure):
    """The text artists with their rectangles, pixels."""
    renderer = FigureCanvasAgg(figure).get_renderer()
    return [(text.get_text(), text.get_window_extent(renderer)) for text in texts(figure)]


def lines(figure):
    """The straight parts of all arrows, pixels."""
    for arrow in figure.axes[0].patches:
        if isinstance(arrow, FancyArrowPatch):
            yield from pairwise(figure.axes[0].transData.transform(arrow._path_original.vertices))


@pytest.mark.parametrize("name", DIAGRAMS)
def test_no_text_is_cut_off_or_runs_into_another(name):
    found = extents(DIAGRAMS[name])
    paper = DIAGRAMS[name].bbox
    assert len(found) > 10
    for text, place in found:
        assert paper.x0 < place.x0 < place.x1 < paper.x1, text
        assert paper.y0 < place.y0 < place.y1 < paper.y1, text
    for (text, a), (other, b) in combinations(found, 2):
        assert not Bbox.intersection(a, b), (text, other)


@pytest.mark.parametrize("name", DIAGRAMS)
def test_texts_stay_inside_the_boxes_that_they_begin_in(name):
    boxes = [patch.get_window_extent() for patch in DIAGRAMS[name].axes[0].patches if isinstance(patch, FancyBboxPatch)]
    for text, place in extents(DIAGRAMS[name]):
        middle = (place.y0 + place.y1) / 2
        for box in boxes:
            if box.contains(place.x0, middle) or box.contains(place.x1, middle):
                assert box.x0 < place.x0 < place.x1 < box.x1, text
                assert box.y0 < place.y0 < place.y1 < box.y1, text


@pytest.mark.parametrize("name", DIAGRAMS)
def test_no_line_runs_through_a_text(name):
    segments = [Path(segment) for segment in lines(DIAGRAMS[name])]
    assert len(segments) > 10
    for text, place in extents(DIAGRAMS[name]):
        assert not any(segment.intersects_bbox(place, filled=False) for segment in segments), text


@pytest.mark.parametrize("name", DIAGRAMS)
def test_texts_can_be_read_in_print(name):
    assert min(text.get_fontsize() for text in texts(DIAGRAMS[name])) >= 6


def test_shapes_are_those_of_a_forward_pass():
    model = network(TINY.model, things=3, stuff=7, device="cpu")
    found = shapes(model, (96, 160))
    with torch.no_grad():
        features = model.eval()(torch.zeros(1, 3, 96, 160))
        things, stuff = model.single_shot(features, 0, Locations(*3 * [torch.zeros(1, dtype=torch.long)]))
    assert found.phi == tuple(features.phi.shape[1:]) == (64, 24, 40)
    assert list(found.classes.values()) == [tuple(c.shape[1:]) for c in features.class_logits]
    assert list(found.filters.values()) == [tuple(f.shape[1:]) for f in features.filter_features]
    assert (found.things, found.stuff) == (tuple(things.shape), tuple(stuff.shape))
    assert found.pooled == (9 * 64,)
    assert found.thing_filter == found.stuff_filters[1:] == (64, 3, 3)
    assert found.stuff_filters[0] == 7
    assert [shape[1:] for shape in found.backbone.values()] == [(24, 40), (12, 20), (6, 10), (3, 5)]
    assert [shape[1:] for shape in found.pyramid.values()] == [(12, 20), (12, 20), (6, 10), (3, 5)]
    assert shapes(network(TINY.model, things=3, stuff=7), (96, 160)) == found


def test_shapes_leave_the_network_as_it_was():
    model = network(TINY.model).train()
    shapes(model, (64, 64))
    assert model.training
    assert model.filter_sampling.training
    assert not any(part._forward_hooks for part in model.modules())


@pytest.mark.parametrize(
    ("config", "things", "size"),
    [(CITYSCAPES, 8, (512, 1024)), (ModelConfig(kernel=1, feature_channels=128), 5, (320, 640))],
)
def test_figure_2_says_what_the_network_has(config, things, size):
    model = network(config, things=things, stuff=19)
    shown = [text.get_text() for text in texts(figure_2(model, size))]
    found = shapes(model, size)
    for shape in (found.image, *found.backbone.values(), *found.pyramid.values()):
        assert size_of(shape) in shown
    assert f"φ: {size[0] // 4} × {size[1] // 4} × {config.feature_channels}" in shown
    assert f"n × {config.kernel**2 * config.filter_channels}" in shown
    assert f"n × {config.kernel} × {config.kernel} × {config.feature_channels}" in shown
    assert any(text.endswith(f"× {things}") and "C_l" in text for text in shown)
    for part in (model.backbone, model.fpn, model.filter_sampling.fc, model.filter_sampling.class_head):
        assert in_millions(part) in shown


@pytest.mark.parametrize("part", TITLES)
def test_one_part_is_highlighted_and_all_others_are_pale(part):
    axes = DIAGRAMS[f"2, {part}"].axes[0]
    pale = [patch.get_window_extent() for patch in axes.patches if patch.get_alpha()]
    bright = {
        text.get_text()
        for text in texts(axes.figure)
        if not any(place.contains(*axes.transData.transform(text.get_position())) for place in pale)
    }
    for word in TITLES[part]:
        assert any(text.startswith(word) for text in bright), word
    others = [word for other, words in TITLES.items() if other != part for word in words]
    assert not [text for text in bright if text.startswith(tuple(others)) and not text.startswith(tuple(TITLES[part]))]
    assert "you are here" in {text.get_text() for text in texts(axes.figure)}
    assert get_args(Part) == tuple(TITLES)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (ModelConfig(separate=True), "separate=False"),
        (ModelConfig(filter_levels="3-7", feature_levels="3-7"), "P6/64"),
        (ModelConfig(filter_levels="2-5", feature_levels="2-6"), "both read"),
    ],
)
def test_figure_2_says_which_networks_it_cannot_show(config, message):
    with pytest.raises(ValueError, match=message):
        figure_2(network(config), (256, 512))


def test_the_same_network_gives_the_same_bytes(tmp_path):
    for turn in ("a", "b"):
        save(figure_1(), tmp_path / turn, "figure_1", sources=[])
        save(figure_2(network(), (1024, 2048)), tmp_path / turn, "figure_2", sources=[])
    files = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert len(files) == 6
    for name in files:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


@pytest.mark.parametrize(
    ("count", "text"), [(5_310_720, "5.3 M"), (50_000, "0.1 M"), (49_999, "50.0 k"), (320, "0.3 k")]
)
def test_counts_of_parameters(count, text):
    assert in_millions(nn.Linear(count, 1, bias=False)) == text
