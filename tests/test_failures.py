"""The figures of missed things and of the masks of small things."""

from __future__ import annotations

import numpy as np
import torch

from spinet.data import Sample
from spinet.data.segments import Categories, Category
from spinet.evaluation.oracle import BestMask
from spinet.figures.failures import failures, missed, small_masks
from spinet.system import Panoptic

CATEGORIES = Categories.of([Category(3, "car", True), Category(4, "person", True), Category(7, "road", False)])


def example() -> tuple[Sample, Panoptic]:
    """A road with three cars and a person; the prediction finds the first car and half of the second."""
    truth = np.ones((120, 300), np.int32)
    truth[20:60, 20:60], truth[20:60, 100:140], truth[20:60, 200:240], truth[80:100, 20:30] = 2, 3, 4, 5
    ids = np.ones_like(truth)
    ids[20:60, 20:60], ids[20:60, 100:120], ids[20:60, 200:240] = 2, 3, 4
    segments = [{"id": 1, "category_id": 7}, *({"id": id_, "category_id": 3} for id_ in (2, 3))]
    found = Panoptic(
        ids=ids,
        segments=[*segments, {"id": 4, "category_id": 4}],
        instances=[],
        semantic=np.zeros_like(truth),
        class_map=None,
    )
    sample = Sample(
        image_id=0,
        image=torch.full((3, *truth.shape), 90, dtype=torch.uint8),
        segment_map=torch.from_numpy(truth),
        labels=torch.tensor([2, 0, 0, 0, 1]),
        crowd=torch.tensor([False] * 5),
    )
    return sample, found


def test_a_thing_is_missed_without_a_segment_of_its_class_that_fits():
    sample, found = example()
    assert [(one.number, one.label, one.area) for one in missed(sample, found, CATEGORIES)] == [
        (3, 0, 1600),  # half of it: IoU of 0.5
        (4, 0, 1600),  # found as a person
        (5, 1, 200),
    ]
    sample.crowd[3] = True
    assert [one.number for one in missed(sample, found, CATEGORIES)] == [3, 5]


def test_the_figure_shows_the_largest_of_each_class():
    sample, found = example()
    figure = failures([sample], lambda image: found, CATEGORIES)
    titles = [axes.get_title() for axes in figure.axes]
    assert titles == ["a missed car, 1600 px", "truth", "prediction", "a missed person, 200 px", "truth", "prediction"]
    assert all(axes.images[0].get_size() == (96, 192) for axes in figure.axes)


def test_the_masks_of_small_things_are_shown_at_equal_steps():
    sample, _ = example()
    right = torch.arange(300).expand(120, 300) >= 220  # half of the third car, and nothing of the other two

    def masks(sample: Sample) -> list[BestMask]:
        return [BestMask(number, label, 0.9, right) for number, label in ((4, 0), (2, 0), (3, 0), (5, 1))]

    shown = small_masks([sample], masks, CATEGORIES, sides=(16, 48), most=2)  # the person is smaller
    share = 800 / (80 * 120 + 800)
    assert [axes.get_title() for axes in shown.axes] == ["car, IoU 0.00", f"car, IoU {share:.2f}"]
    coloured = np.asarray(shown.axes[1].images[0].get_array())
    assert {tuple(pixel) for pixel in coloured.reshape(-1, 3).tolist()} == {(90, 90, 90), (189, 36, 189)}
