"""Table 2, measured: scenes with an exact number of things, systems that find them, and references for their times."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from spinet import predict
from spinet.config import PRESETS, ConfigError
from spinet.config.baselines import BASELINES
from spinet.evaluation.panoptic_quality import PanopticQuality
from spinet.files import write_json
from spinet.inference.predict import postprocess, run_network
from spinet.records import find_records
from spinet.speed.accounting import describe
from spinet.speed.benchmark import FASTER, _grouping_things, _ratios, _statistics, benchmark
from spinet.speed.staging import stage
from spinet.speed.summary import summary
from spinet.speed.yardstick import Yardstick, counting_moves, peak_memory
from spinet.synthcity.mosaic import CATEGORIES, LEAST_DISTANCE, LEAST_SIDE, mosaic
from spinet.system import Model
from spinet.systems import build_model
from spinet.weights import freeze

SIZE = (256, 512)


def untrained(system: str, precision: str = "fp32") -> Model:
    config = PRESETS["tiny"].with_system(system)
    config = replace(config, inference=replace(config.inference, precision=precision))
    torch.manual_seed(0)
    model = build_model(config, CATEGORIES)
    freeze(model.network)
    return model


def pixels(sample):
    return sample.pixels


@pytest.mark.parametrize("things", [0, 7, 20])
def test_a_mosaic_has_so_many_things_and_no_void(things: int):
    sample = mosaic(things, SIZE)
    assert sample.image.shape == (3, *SIZE)
    numbers = sample.segment_map.unique().tolist()
    assert numbers == list(range(1, len(sample.labels) + 1))
    assert (sample.labels < CATEGORIES.num_things).tolist() == [n <= things for n in numbers]
    assert sample.image.float().std() > 20
    places = [torch.nonzero(sample.segment_map == number) for number in range(1, things + 1)]
    assert all((place.amax(0) - place.amin(0) + 1).min() >= LEAST_SIDE for place in places)
    middles = torch.stack([(p.amin(0) + p.amax(0) + 1) / 2 for p in places]) if places else torch.zeros(0, 2)
    apart = (middles[:, None] - middles).abs().amax(2).fill_diagonal_(torch.inf) if places else torch.full((1,), 1e9)
    assert apart.min() >= LEAST_DISTANCE
    areas = [len(place) for place in places]
    assert areas == sorted(areas, reverse=True)


def test_too_many_things_are_refused():
    with pytest.raises(ValueError, match="no 5000 things in an image of 128 x 256"):
        mosaic(5000, (128, 256))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("system", ["spinet", *BASELINES])
def test_on_stage_every_system_finds_the_things_that_are_there(system: str, precision: str):
    model, sample = untrained(system, precision), mosaic(12, SIZE)
    state = {name: tensor.clone() for name, tensor in model.network.state_dict().items()}
    with stage(model, sample):
        prediction = predict(model, pixels(sample))
    truth = [{"id": n, "category_id": CATEGORIES.all[label].id} for n, label in enumerate(sample.labels.tolist(), 1)]
    quality = PanopticQuality(CATEGORIES)
    quality.update(sample.segment_map.numpy(), truth, prediction.ids, prediction.segments)
    assert sum(segment["isthing"] for segment in prediction.segments) == 12
    matched = quality.state[: CATEGORIES.num_things, 1].sum()
    assert matched >= (9 if system == "condinst" else 11)  # its masks have stride 8
    assert quality.result()["Stuff"]["pq"] > 0.5
    # and everything is restored
    assert all(torch.equal(state[name], tensor) for name, tensor in model.network.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.network.modules())


@pytest.mark.parametrize("system", ["spinet", *BASELINES])
def test_on_an_empty_stage_nothing_is_found(system: str):
    model, sample = untrained(system), mosaic(0, (128, 256))
    with stage(model, sample):
        prediction = predict(model, pixels(sample))
    assert prediction.segments
    assert not any(segment["isthing"] for segment in prediction.segments)


def test_duplicates_are_there_to_be_removed():
    model, sample = untrained("spinet"), mosaic(12, SIZE)
    with stage(model, sample):
        features = run_network(model, pixels(sample)).features
    fired = [int((level > 0).sum()) for level in features.class_logits]
    assert fired == [12, 12, 12, 0]


def test_both_groupings_give_the_same_map():
    model, sample = untrained("panoptic_deeplab"), mosaic(12, SIZE)
    with stage(model, sample):
        encoded = run_network(model, pixels(sample))
        published = postprocess(model, encoded)
        with _grouping_things(model.network):
            assert not model.network.config.group_all_pixels
            faster = postprocess(model, encoded)
    assert model.network.config.group_all_pixels
    assert np.array_equal(published.ids, faster.ids)


def test_counts_are_those_of_the_paper_s_table(tmp_path):
    """The rows: multiply-accumulates as in `accounting`, for a staged scene with 0 things."""
    record = benchmark(
        systems=["spinet", "panoptic_deeplab"],
        size=SIZE,
        instances=[0, 3],
        preset="tiny",
        precision=["fp32"],
        repeats=1,
    )
    assert all(row["optimized"] for row in record["rows"])
    rows = {(row["system"], row["instances"]): row for row in record["rows"]}
    assert rows.keys() == {(s, n) for s in ("spinet", "panoptic_deeplab", FASTER) for n in (0, 3)}
    counted = describe("tiny", size=SIZE, num_filters=0)
    assert PRESETS["tiny"].data.size == SIZE
    row = rows["spinet", 0]
    assert row["params"] == counted["params"]
    assert row["macs"] == counted["macs"]
    filters = 3 * 3  # candidates: three things on three levels
    more = rows["spinet", 3]["macs"] - describe("tiny", size=SIZE, num_filters=filters)["macs"]
    assert 0 <= more <= filters**2 * SIZE[0] * SIZE[1]  # overlaps of masks
    for (_, count), row in rows.items():
        assert row["found"] == count
        assert row["total_s"] >= max(row["network_s"], row["post_s"]) > 0
        assert row["network_macs"] <= row["macs"]
        assert row["peak_memory"] is None or row["peak_memory"] > 4 * row["params"]
        assert row["total_ratio"] == pytest.approx(row["total_s"] / rows["spinet", count]["total_s"])
        rate = next(r for r in record["rates"] if r["instances"] == count)
        assert row["floor_macs_s"] == pytest.approx(row["network_macs"] / rate["macs_per_s"])
        assert row["floor_bytes_s"] == pytest.approx(row["network_bytes"] / rate["bytes_per_s"])
    assert len(summary(record)) == len(rows)
    write_json(record, tmp_path / "bench.json")
    assert json.loads((tmp_path / "bench.json").read_text())["rows"] == record["rows"]
    assert not find_records(tmp_path)  # not a run record: nothing was trained


def test_networks_are_timed_as_built_beside_what_they_become():
    record = benchmark(
        systems=["spinet", "condinst"], size=SIZE, instances=[4], preset="tiny", optimize=[True, False], repeats=1
    )
    rows = {row["system"]: row for row in summary(record)}
    assert list(rows) == ["spinet", "spinet, as built", "condinst", "condinst, as built"]
    assert all(row["found"] == 4 for row in rows.values())
    assert rows["spinet"]["× SPINet"] == 1
    assert rows["spinet"]["MACs G"] == rows["spinet, as built"]["MACs G"]  # the reference is the same


def test_medians_quartiles_and_ratios():
    row = _statistics(np.array([[1.0, 10.0], [2.0, 30.0], [3.0, 20.0], [4.0, 40.0], [5.0, 50.0]]))
    assert (row["network_s"], row["post_s"], row["total_s"]) == (3, 30, 32)
    assert row["network_quartiles"] == [2, 4]
    assert row["total_quartiles"] == [23, 44]
    base = {"precision": "fp32", "instances": 1, "optimized": True}
    spinet = base | {"system": "spinet", "network_s": 2.0, "post_s": 1.0, "total_s": 3.0}
    other = base | {"system": "upsnet", "network_s": 4.0, "post_s": 5.0, "total_s": 9.0}
    assert _ratios(other, [spinet, other]) == {"network_ratio": 2, "post_ratio": 5, "total_ratio": 3}
    built = spinet | {"optimized": False, "network_s": 8.0}
    assert _ratios(other, [built, spinet, other])["network_ratio"] == 2
    assert _ratios(other, [built, other])["network_ratio"] == 0.5
    elsewhere = spinet | {"precision": "bf16"}
    assert _ratios(other, [elsewhere, other])["total_ratio"] is None


def test_nothing_to_time_is_an_error():
    with pytest.raises(ConfigError, match="nothing to time"):
        benchmark(systems=[], size=SIZE, instances=[0])
    with pytest.raises(ConfigError, match="no system 'unet'"):
        benchmark(systems=["unet"], size=SIZE, instances=[0])


def test_moves_of_a_layer_by_hand():
    network = nn.Sequential(nn.Conv2d(2, 3, 3, padding=1), nn.ReLU(), nn.Linear(8, 5))
    with counting_moves(network) as moves:
        network(torch.zeros(1, 2, 4, 8))
    convolution = 2 * 32 + 3 * 32 + (2 * 3 * 9 + 3)
    linear = 3 * 32 + 3 * 4 * 5 + (8 * 5 + 5)
    assert moves == [convolution, linear]
    assert not any(module._forward_hooks for module in network)


def test_the_yardstick_counts_what_it_times():
    stick = Yardstick((64, 128), precision=torch.float32, device=torch.device("cpu"))
    assert stick.macs == 256 * 256 * 9 * 8 * 16
    stick.taken = [(0.5, 0.25), (1.0, 0.5), (4.0, 8.0)]
    bytes_ = 2 * 4 * 256 * 16 * 32
    assert stick.rates() == {"macs_per_s": stick.macs, "bytes_per_s": bytes_ / 0.5}
    stick.take()
    assert len(stick.taken) == 4
    assert min(stick.taken[-1]) > 0


def test_peak_memory_sees_what_is_freed_again():
    megabytes = 2**20
    peak = peak_memory(torch.device("cpu"), lambda: torch.ones(64 * megabytes, dtype=torch.uint8).max())
    if peak is None:
        pytest.skip("no /proc")
    assert 60 * megabytes < peak < 200 * megabytes


def test_every_preset_has_room_for_the_codes_of_the_stage():
    for config in (preset.config for preset in PRESETS.values()):
        assert config.model.feature_channels == config.model.filter_channels > CATEGORIES.num_things + 12


@pytest.mark.parametrize(
    "script",
    [
        ["training_step.py", "--steps", "1"],
        ["systems.py", "--steps", "1"],
        ["input_pipeline.py", "--images", "2"],
        ["evaluation.py", "--images", "1", "--repeats", "1"],
        ["synthcity.py", "1", "64", "128"],
    ],
    ids=lambda script: script[0],
)
def test_the_scripts_that_measure_times_run(script: list[str]):
    name, *arguments = script
    path = Path(__file__).parents[1] / "benchmarks" / name
    subprocess.run([sys.executable, str(path), *arguments], check=True, capture_output=True, text=True)
