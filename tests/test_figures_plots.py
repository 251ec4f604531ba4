"""Images side by side, and curves."""

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.colors import to_hex

from spinet.figures.plots import MARKED, gallery, line
from spinet.figures.style import COLORS, PAGE, to_png


def curves(number=3, points=50):
    x = pd.Index(np.linspace(0, 1, points), name="threshold")
    return pd.DataFrame({f"curve {k}": x.to_numpy() ** (k + 1) for k in range(number)}, index=x)


def test_a_gallery_has_every_image_with_its_title():
    images = {"photo": np.zeros((32, 64, 3), np.uint8), "map": torch.rand(8, 16), "third": np.ones((32, 64))}
    figure = gallery(images, vmin=0, vmax=2)
    assert [axes.get_title() for axes in figure.axes] == list(images)
    for axes, image in zip(figure.axes, images.values(), strict=True):
        (shown,) = axes.get_images()
        assert np.array_equal(shown.get_array(), np.asarray(image))
        assert shown.get_clim() == (0, 2)
    to_png(figure)  # lays the figure out
    boxes = [axes.get_window_extent() for axes in figure.axes]
    assert boxes[0].y0 == pytest.approx(boxes[1].y0)
    assert boxes[2].y1 < boxes[0].y0
    assert boxes[2].x0 == pytest.approx(boxes[0].x0)


def test_titles_of_a_gallery_may_repeat():
    assert [axes.get_title() for axes in gallery([("car", np.eye(2)), ("car", np.eye(2))]).axes] == ["car", "car"]


@pytest.mark.parametrize("columns", [1, 2, 3, 5])
@pytest.mark.parametrize("title", ["one line", "two\nlines"])
def test_images_of_a_gallery_are_as_wide_as_the_page_allows(columns, title):
    figure = gallery([(title, np.zeros((40, 60)))] * 2 * columns, columns=columns)
    to_png(figure)
    wide = sum(axes.get_window_extent().width for axes in figure.axes) / 2
    assert 0.9 * PAGE < wide / figure.dpi < PAGE


def test_a_line_can_be_told_by_colour_and_by_style():
    figure = line(curves(), xlabel="x", ylim=(0, 2), title="three")
    (axes,) = figure.axes
    assert (axes.get_title(), axes.get_xlabel(), axes.get_ylim()) == ("three", "x", (0, 2))
    drawn = axes.get_lines()[:3]
    for curve, name in zip(drawn, curves(), strict=True):
        assert np.array_equal(curve.get_xydata(), curves()[[name]].reset_index().to_numpy())
    assert [to_hex(curve.get_color()).upper() for curve in drawn] == list(COLORS[:3])
    assert len({str(curve._dash_pattern) for curve in drawn}) == 3  # the styles
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == list(curves())


def test_few_points_have_markers():
    markers = [
        {one.get_marker() for one in line(curves(points=n)).axes[0].get_lines()[:3]} for n in (MARKED, MARKED + 1)
    ]
    assert len(markers[0]) == 3
    assert markers[1] == {"None"}


def test_panels_share_a_legend_with_the_reference_lines():
    figure = line({"left": curves(), "right": 1 - curves()}, vertical={"0.45": 0.45}, horizontal={"chance": 0.1})
    assert [axes.get_title() for axes in figure.axes] == ["left", "right"]
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [*curves(), "0.45", "chance"]
    assert not any(axes.get_legend() for axes in figure.axes)


def test_one_curve_needs_no_legend():
    assert not line(curves(1)).legends
    assert not line({"left": curves(1), "right": curves(1)}, ylabel="y").legends
