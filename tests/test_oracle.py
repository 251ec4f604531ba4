"""PQ with parts of the output replaced by the truth."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from spinet.data import PanopticDataset, open_dataset
from spinet.data.segments import decode_ids
from spinet.evaluation import PanopticQuality, oracle, summarize
from spinet.evaluation.oracle import ORACLES, mask_errors, with_truth
from spinet.inference.mask_logits import MaskLogits
from spinet.inference.predict import predict, run_network
from spinet.synthcity import generate
from spinet.system import Model
from spinet.weights import load_model


@pytest.fixture(scope="module")
def model() -> Model:
    return load_model()


@pytest.fixture(scope="module")
def city(tmp_path_factory: pytest.TempPathFactory, model: Model) -> PanopticDataset:
    root = tmp_path_factory.mktemp("city")
    generate(root, num_train=1, num_val=2, size=(256, 512), seed=3, progress=False)
    return open_dataset(root, "val").with_categories(model.categories)


def test_without_a_part_it_is_the_prediction(model: Model, city: PanopticDataset):
    sample = city[0]
    found = with_truth(model, run_network(model, sample.pixels), sample, ())
    assert np.array_equal(found.ids, predict(model, sample.pixels).ids)


def test_true_parts_raise_what_they_are_for(model: Model, city: PanopticDataset):
    scores = {}
    for name, parts in ORACLES.items():
        measure = PanopticQuality(model.categories)
        for index in range(len(city)):
            sample, record = city[index], city.records[index]
            found = with_truth(model, run_network(model, sample.pixels), sample, parts)
            measure.update(decode_ids(city.read(index).panoptic), record.segments_info, found.ids, found.segments)
        scores[name] = summarize(measure.result())
    assert scores["stuff"]["PQ_st"] > scores["none"]["PQ_st"] + 5
    assert scores["none"]["PQ_th"] < scores["masks"]["PQ_th"] < scores["scores and masks"]["PQ_th"]
    assert scores["all"]["PQ"] == max(score["PQ"] for score in scores.values()) > 65


def test_no_thing_and_no_location(model: Model, city: PanopticDataset):
    sample = city[0]
    stuff = sample.labels >= city.categories.num_things
    empty = torch.where(stuff[sample.segment_map.long() - 1] & (sample.segment_map > 0), sample.segment_map, 0)
    sample.segment_map = empty
    found = with_truth(model, run_network(model, sample.pixels), sample, ("scores", "masks"))
    assert not any(segment["isthing"] for segment in found.segments)


def test_errors_of_masks_are_counted_by_kind(model: Model, city: PanopticDataset, monkeypatch: pytest.MonkeyPatch):
    sample = city[0]
    output = run_network(model, sample.pixels)
    errors = mask_errors(model, output, sample)
    assert min(one.iou() for one in errors) < 0.5 < max(one.iou() for one in errors)
    for one in errors:
        assert one.iou() <= min(one.iou(same_class=False), one.iou(elsewhere=False))
        assert one.iou(same_class=False, elsewhere=False) == (one.area - one.missed) / one.area

    left = torch.arange(512) < 256
    real = oracle.masks_at

    def covering_the_left_half(*arguments: Any) -> Any:
        masks, stuff = real(*arguments)
        logits = masks.whole()
        return MaskLogits.of(torch.where(left[2::4], 5.0, -5.0).expand_as(logits)), stuff

    monkeypatch.setattr(oracle, "masks_at", covering_the_left_half)
    classes = torch.cat([torch.tensor([-1]), sample.labels])[sample.segment_map.long()]
    expected = set()
    for number, (label, crowd) in enumerate(zip(sample.labels, sample.crowd, strict=True), 1):
        if label < city.categories.num_things and not crowd:
            thing = sample.segment_map == number
            same, elsewhere = (left & ~thing & here for here in (classes == label, classes != label))
            expected.add(tuple(int(part.sum()) for part in (thing, thing & ~left, same, elsewhere)))
    found = {(one.area, one.missed, one.same_class, one.elsewhere) for one in mask_errors(model, output, sample)}
    assert found <= expected
    assert len(found) == len(errors) > len(sample.labels[sample.labels < city.categories.num_things]) / 2
