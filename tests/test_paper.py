"""The paper's numbers are consistent, so that a typing error in one of them is found."""

import ast
from pathlib import Path

import pytest

from spinet import paper
from spinet.config import CITYSCAPES_R50, COCO_R50, PRESETS
from spinet.paper import CITYSCAPES, COCO, TABLE_1, TABLE_2, TABLE_3, TABLE_4, TABLE_5

QUALITIES = [
    *((f"{row.place}, COCO", COCO, row.coco) for row in TABLE_1),
    *((f"{row.place}, Cityscapes", CITYSCAPES, row.cityscapes) for row in TABLE_1),
    *((row.place, CITYSCAPES, row.quality) for row in TABLE_3),
    *((row.place, COCO, row.quality) for row in TABLE_4),
]
WHOLE = [(place, data, q) for place, data, q in QUALITIES if None not in (q.pq, q.pq_things, q.pq_stuff)]


@pytest.mark.parametrize(("data", "q"), [pytest.param(data, q, id=place) for place, data, q in WHOLE])
def test_pq_is_the_mean_over_things_and_stuff(data, q):
    mean = (data.things * q.pq_things + data.stuff * q.pq_stuff) / (data.things + data.stuff)
    assert q.pq == pytest.approx(mean, abs=0.1)  # each of the three is rounded to 0.1


def test_most_rows_have_all_three_qualities():
    assert len(WHOLE) == 26


@pytest.mark.parametrize("row", TABLE_2, ids=lambda row: row.method)
def test_total_time_is_network_and_post(row):
    assert row.total == row.network + row.post


def test_places_count_the_rows():
    for number, table in enumerate((TABLE_1, TABLE_2, TABLE_3, TABLE_4, TABLE_5), start=1):
        assert [row.place for row in table] == [f"Table {number}, row {i + 1}" for i in range(len(table))]


def test_full_model_is_the_same_in_every_table():
    plain, deformable = TABLE_1[-2:]
    assert not plain.deformable
    assert deformable.deformable
    speed, losses, levels, integrated = TABLE_2[-1], TABLE_3[-1], TABLE_4[-1], TABLE_5[-1]
    assert plain.cityscapes.pq == speed.pq == losses.quality.pq == integrated.pq == 63.0
    assert (losses.quality.pq_things, losses.quality.pq_stuff) == (
        plain.cityscapes.pq_things,
        plain.cityscapes.pq_stuff,
    )
    assert (plain.coco.pq, plain.coco.pq_things, plain.coco.pq_stuff) == (
        levels.quality.pq,
        levels.quality.pq_things,
        levels.quality.pq_stuff,
    )
    assert (speed.network, speed.params) == (integrated.network, integrated.params)
    assert TABLE_3[1].params == integrated.params  # no auxiliary head
    assert (deformable.cityscapes.pq, deformable.coco.pq) == (paper.PQ_CITYSCAPES, paper.PQ_COCO)


def test_integration_gains_what_the_text_says():
    separate, integrated = TABLE_5
    assert integrated.pq - separate.pq == pytest.approx(0.7)  # §5.4
    assert integrated.params < separate.params
    assert integrated.flops < separate.flops
    assert integrated.network < separate.network


def test_auxiliary_heads_cost_parameters_and_the_dice_loss_none():
    for row in TABLE_3:
        assert row.params == (42.3 if row.inter_class_contour or row.intra_class_triplet else 42.2)


def test_presets_follow_the_paper():
    for config, training, levels in (
        (CITYSCAPES_R50, paper.TRAINING_CITYSCAPES, "2-5"),
        (COCO_R50, paper.TRAINING_COCO, TABLE_4[-1].feature_levels),
    ):
        train, weights = config.train, config.objective
        assert train.batch_size == train.reference_batch == training.gpus * training.images_per_gpu
        assert train.images_per_device == training.images_per_gpu
        assert train.iterations == training.iterations
        assert train.learning_rate == training.learning_rate
        assert [round(share * train.iterations) for share in train.milestones] == list(training.milestones)
        assert training.coefficients == (
            weights.classes,
            weights.stuff,
            weights.things,
            weights.inter_class_contour,
            weights.intra_class_triplet,
        )
        assert weights.bootstrap == training.bootstrap
        assert config.inference.threshold == paper.THRESHOLD
        assert config.model.head_convs == paper.HEAD_CONVOLUTIONS
        assert config.model.feature_channels == paper.FEATURE_CHANNELS
        assert config.model.feature_levels == config.model.filter_levels == levels


def test_class_counts_are_the_presets():
    assert PRESETS["cityscapes_r50"].data.num_classes == (CITYSCAPES.things, CITYSCAPES.stuff)
    assert PRESETS["coco_r50"].data.num_classes == (COCO.things, COCO.stuff)


def test_imports_nothing_local():
    source = Path(str(paper.__file__)).read_text(encoding="utf-8")
    modules = {node.module for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ImportFrom)}
    assert modules == {"__future__", "dataclasses"}
