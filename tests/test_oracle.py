"""PQ with parts of the output replaced by the truth."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from spinet.data import PanopticDataset, open_dataset
from spinet.data.segments import decode_ids
from spinet.evaluation import PanopticQuality, summarize
from spinet.evaluation.oracle import ORACLES, with_truth
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
