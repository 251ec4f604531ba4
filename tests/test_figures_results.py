"""Figures of results: they show all their data, without overlaps."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from itertools import combinations

import cv2
import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image

from spinet.config import PRESETS, ConfigError, to_dict
from spinet.config.overrides import differences, override
from spinet.data import open_dataset
from spinet.data.label_space import LabelSpace
from spinet.data.overlay import draw_panoptic
from spinet.data.segments import Categories, Category, Sample
from spinet.evaluation.clustering import Pixels
from spinet.experiments.pair import TASKS_OFF, find_pairs, load_pair, load_shipped_pair
from spinet.experiments.sweep import NOTEBOOK, PLAN, ExperimentError, Plan, make_plan
from spinet.figures import __main__ as command
from spinet.figures.clusters import class_groups, feature_map, group_maps, most_frequent_thing
from spinet.figures.film import film_frame, save_film
from spinet.figures.ground_truth import draw_classes, draw_segments, figure_targets
from spinet.figures.results import Seen, balance, figure_5, gains, speed
from spinet.figures.runs import learned_by_heart, paired_dots
from spinet.files import write_json
from spinet.inference.predict import Prediction
from spinet.objective.objective import Objective
from spinet.objective.targets import TargetBuilder
from spinet.paper import TABLE_1
from spinet.records import new_record, write_record
from spinet.reproduce import film
from spinet.synthcity import generate
from spinet.systems import build_model
from spinet.training.outcome import RECORD
from spinet.training.run import SNAPSHOTS
from spinet.weights import WeightsError, load_model, save_model, save_objective

COLORS = [(0, 0, 142), (220, 20, 60), (128, 64, 128), (70, 130, 180)]
GROUPS = ("group a", "group b", "group a", "")
CATEGORIES = Categories.of(
    [Category(i + 1, f"class {i}", i < 2, *more) for i, more in enumerate(zip(COLORS, GROUPS, strict=True))]
)


def prediction(ids, categories):
    segments = [{"id": i + 1, "category_id": category} for i, category in enumerate(categories)]
    return Prediction(ids, segments, [], ids, None, 0.0, 0.0)


def test_figure_5_shows_the_four_pictures_of_every_row():
    generator = np.random.default_rng(0)
    rows = [
        Seen(
            generator.integers(0, 256, (32, 64, 3), dtype=np.uint8),
            prediction(generator.integers(0, 3, (32, 64)).astype(np.int32), (1, 3)),
            generator.random((32, 64)),
            prediction(generator.integers(0, 4, (32, 64)).astype(np.int32), (1, 2, 4)),
        )
        for _ in range(2)
    ]
    figure = figure_5(rows, CATEGORIES)
    shown = [axes.images[0].get_array() for axes in figure.axes]
    assert len(shown) == 8
    for row, (image, without, contour, with_tasks) in zip(rows, (shown[:4], shown[4:]), strict=True):
        assert np.array_equal(image, row.image)
        assert np.array_equal(contour, row.contour)
        for picture, said in ((without, row.without_tasks), (with_tasks, row.with_tasks)):
            assert np.array_equal(picture, draw_panoptic(row.image, said.ids, said.segments, CATEGORIES))
    titles = [axes.get_title() for axes in figure.axes[:4]]
    assert [title[:3] for title in titles] == ["(a)", "(b)", "(c)", "(d)"]


def cells():
    """Three instances of class 1, one of class 0, and stuff: 25 cells of each."""
    segment = np.repeat(np.arange(5), 25)
    label = np.array([1, 1, 1, 0, 2])[segment]
    generator = np.random.default_rng(0)
    place = np.column_stack([np.arange(125) // 16, np.arange(125) % 16])
    return Pixels(generator.random((125, 8), dtype=np.float32), segment, label, place, np.zeros(125, dtype=int))


def test_the_map_colours_groups_above_and_the_commonest_things_below():
    pixels = cells()
    points = np.random.default_rng(1).random((125, 2)) + 5 * pixels.label[:, None]
    image = np.zeros((64, 64, 3), dtype=np.uint8)
    figure = feature_map(image, pixels, {"without": points, "with": points + 1}, CATEGORIES)
    above, below = figure.axes[:3], figure.axes[3:]
    group_a = pixels.label != 1  # classes 0 and 2
    for axes, places in zip(above[1:], (points, points + 1), strict=True):
        first, *_ = axes.collections
        assert np.allclose(first.get_offsets(), places[group_a])
        assert {text.get_text() for text in axes.texts} == {"group a", "group b"}
        drawn = {tuple(line.get_edgecolor()[0][:3]) for line in axes.collections if not len(line.get_offsets()) > 1}
        assert len(drawn) == 2  # lines of density in the colour of each group
    for axes in below[1:]:
        grey, *instances = axes.collections
        assert len(grey.get_offsets()) == np.count_nonzero(pixels.label != 1)
        assert [len(one.get_offsets()) for one in instances] == [25, 25, 25]
        assert len({tuple(one.get_facecolor()[0]) for one in instances}) == 3
        assert len({one.get_paths()[0].vertices.tobytes() for one in instances}) == 3  # a marker each
    shown = np.concatenate([one.get_offsets() for one in above[0].collections])
    assert sorted(map(tuple, shown)) == sorted(map(tuple, (pixels.cell[:, ::-1] + 0.5) * 4))
    assert below[0].get_title() == "by instance: each class 1"
    halved = feature_map(image, pixels, {"": points}, CATEGORIES, stride=8)  # image at half the size
    shown = np.concatenate([one.get_offsets() for one in halved.axes[0].collections])
    assert sorted(map(tuple, shown)) == sorted(map(tuple, (pixels.cell[:, ::-1] + 0.5) * 8))


def test_the_map_shows_the_cells_of_one_image_on_it():
    pixels = cells()
    pixels.image[25:] = 1  # the first instance of class 1 in image 0, all others in image 1
    figure = feature_map(
        np.zeros((64, 64, 3), np.uint8), pixels, {"": np.random.default_rng(0).random((125, 2))}, CATEGORIES
    )
    shown = np.concatenate([one.get_offsets() for one in figure.axes[0].collections])
    assert np.count_nonzero(~np.isnan(np.ma.filled(shown, np.nan)).any(1)) == 25
    assert [len(one.get_offsets()) for one in figure.axes[3].collections] == [100, 25]


def test_a_class_without_a_group_is_one_of_its_own():
    groups = class_groups(np.array([0, 1, 2, 3, 3]), CATEGORIES)
    assert {name: found.tolist() for name, found in groups.items()} == {
        "group a": [True, False, True, False, False],
        "group b": [False, True, False, False, False],
        "class 3": [False, False, False, True, True],
    }


def test_maps_beside_each_other_have_titles_and_no_empty_axes():
    pixels = cells()
    points = np.random.default_rng(0).random((125, 2))
    figure = group_maps(dict.fromkeys("abcd", points), pixels.label, CATEGORIES)
    assert [axes.get_title() for axes in figure.axes] == list("abcd")


# --- the film ---------------------------------------------------------------------------------------------------------


def test_a_film_has_a_frame_for_each_moment(tmp_path):
    generator = np.random.default_rng(0)
    image = generator.integers(0, 256, (32, 64, 3), dtype=np.uint8)
    said = prediction(generator.integers(0, 3, (32, 64)).astype(np.int32), (1, 3))
    contour, confidence, feature = generator.random((32, 64)), generator.random((4, 8)), generator.random((8, 16, 3))
    frames = [
        film_frame(image, said, feature, contour, confidence, CATEGORIES, title=f"after {count}") for count in (0, 9)
    ]
    panels = [axes.images[0].get_array() for axes in frames[0].axes]
    for panel, expected in zip(panels[:3], (confidence, feature, contour), strict=True):
        assert np.array_equal(panel, expected)
    assert np.array_equal(panels[3], draw_panoptic(image, said.ids, said.segments, CATEGORIES))
    save_film(frames, tmp_path / "film.webp", seconds=0.5)
    with Image.open(tmp_path / "film.webp") as movie:
        assert movie.n_frames == 2
        movie.seek(1)
        movie.load()
        assert movie.info["duration"] == 1500


def test_the_commonest_thing_has_most_instances_whatever_their_size():
    pixels = cells()
    assert most_frequent_thing(pixels, CATEGORIES) == (1, [0, 1, 2])
    fewer = pixels[~np.isin(np.arange(125), [0, 1, 25])]
    assert most_frequent_thing(fewer, CATEGORIES) == (1, [2, 1, 0])
    assert most_frequent_thing(pixels[pixels.label == 2], CATEGORIES) == (0, [])
    feature_map(np.zeros((64, 64, 3), np.uint8), pixels[pixels.label == 2], {"": np.zeros((25, 2))}, CATEGORIES)


def test_balance_names_every_known_system_and_no_name_covers_another():
    figure = balance(TABLE_1)
    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.draw(renderer)
    for axes, field in zip(figure.axes, ("coco", "cityscapes"), strict=True):
        known = [row for row in TABLE_1 if getattr(row, field).pq_things and getattr(row, field).pq_stuff]
        assert [text.get_text().split(",")[0] for text in axes.texts] == [row.method for row in known]
        extents = [(text.get_text(), text.get_window_extent(renderer)) for text in axes.texts]
        assert not [(a, b) for (a, one), (b, other) in combinations(extents, 2) if one.overlaps(other)]
        assert all(figure.bbox.x0 <= extent.x0 and extent.x1 <= figure.bbox.x1 for _, extent in extents)


def test_speed_places_every_system_and_starts_at_no_time():
    figure = speed({"a": {"SPINet": (0.2, 63.0), "UPSNet": (0.5, 59.3)}, "b": {"SPINet": (8.0, 63.0)}})
    left, right = figure.axes
    assert [collection.get_offsets().tolist() for collection in left.collections] == [[[0.2, 63.0]], [[0.5, 59.3]]]
    assert [text.get_text() for text in left.texts] == ["SPINet", "UPSNet"]
    assert left.get_xlim()[0] == right.get_xlim()[0] == 0
    assert (left.get_title(), right.get_title()) == ("a", "b")


def dots(axes):
    """The positions of a strip plot's dots."""
    return sorted(tuple(place) for drawn in axes.collections for place in np.asarray(drawn.get_offsets()).tolist())


def test_gains_are_bars_to_the_mean_with_a_dot_for_each_run():
    panels = {"paper": {"a": [0.5], "b": [-0.2]}, "ours": {"a": [1.0, 2.0, 3.0], "b": []}}
    figure = gains(panels, label="PQ")
    widths = [[bar.get_width() for bar in axes.patches if bar.get_width()] for axes in figure.axes]
    assert widths == [pytest.approx([0.5, -0.2]), pytest.approx([2.0])]
    spreads = [line.get_xdata() for line in figure.axes[1].lines if not np.isnan(line.get_xdata()).any()]
    assert [1.0, 3.0] in [list(spread) for spread in spreads]
    assert [dots(axes) for axes in figure.axes] == [[], [(1.0, 0.0), (2.0, 0.0), (3.0, 0.0)]]
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["a", "b"]


def test_targets_are_drawn_as_they_are(scene):
    segment_map, labels, crowd = scene(seed=1, things=5, crowd=1)
    image = torch.randint(0, 256, (3, 64, 96), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    categories = Categories.of([Category(i, str(i), i < 3, (40 * i, 0, 255 - 30 * i)) for i in range(7)])
    sample = Sample(image_id=0, image=image, segment_map=segment_map, labels=labels, crowd=crowd)
    builder = TargetBuilder(strides=[8, 16], space=LabelSpace("all", 3, 4))
    targets = builder(segment_map[None], [labels], [crowd], [0])
    figure = figure_targets(sample, targets, [8, 16], categories)
    shown = [np.asarray(axes.images[0].get_array()) for axes in figure.axes]
    assert np.array_equal(shown[2], targets.contour[0])
    assert np.array_equal(shown[4], draw_classes(targets.classes[1][0].numpy(), categories))
    assert any(np.array_equal(shown[5], mask) for mask in targets.images[0].masks)
    places = np.concatenate([dots.get_offsets() for dots in figure.axes[3].collections])
    finest = targets.images[0].sample_level == 0
    expected = torch.stack([targets.images[0].sample_x, targets.images[0].sample_y], 1)[finest]
    assert sorted(map(tuple, places)) == sorted(map(tuple, expected.tolist()))
    white, grey = draw_classes(np.array([[-1, -2]]), categories)[0]
    assert (white == 255).all()
    assert np.ptp(grey) == 0
    crowded = cv2.erode((segment_map.numpy() == len(labels)).astype(np.uint8), np.ones((3, 3), np.uint8)) == 1
    assert crowded.any()
    plain = image.permute(1, 2, 0).numpy()
    assert np.array_equal(draw_segments(sample, categories)[crowded], plain[crowded])
    nothing = Sample(image_id=0, image=image, segment_map=segment_map, labels=labels.clamp(min=3), crowd=crowd)
    targets = builder(segment_map[None], [nothing.labels], [crowd], [0])
    with pytest.raises(ValueError, match="without things"):
        figure_targets(nothing, targets, [8, 16], categories)


# --- the pair of networks ---------------------------------------------------------------------------------------------

START = override(
    PRESETS["tiny"],
    {"model.fpn_channels": 16, "model.filter_channels": 16, "model.feature_channels": 16, "model.head_convs": 1},
)


def save_run(folder, config):
    """Random weights in the files of a run."""
    torch.manual_seed(config.train.seed)
    save_model(build_model(config, CATEGORIES), folder / "model.safetensors")
    objective = Objective(config=config.objective, feature_channels=16)
    save_objective(objective, config, folder / "auxiliary.safetensors")
    return folder


def test_a_pair_differs_in_the_tasks_alone(tmp_path):
    first = save_run(tmp_path / "with", START.config)
    second = save_run(tmp_path / "without", override(START, {**TASKS_OFF, "train.seed": 1}).config)
    pair = load_pair(first, second)
    assert pair.with_tasks.config == START.config
    assert pair.without_tasks.config.objective.inter_class_contour == 0
    assert pair.contour.logits(torch.zeros(1, 16, 4, 4)).shape == (1, 16, 16)
    with pytest.raises(ConfigError, match="without the contour task"):
        load_pair(second, second)
    with pytest.raises(ConfigError, match="with an auxiliary task"):
        load_pair(first, first)
    other = save_run(tmp_path / "other", override(START, {**TASKS_OFF, "train.iterations": 7}).config)
    with pytest.raises(ConfigError, match=r"other.*also differs from .* in train\.iterations$"):
        load_pair(first, other)
    with pytest.raises(WeightsError, match="no such file"):
        load_pair(first, tmp_path / "gone")


def test_the_packaged_pair_differs_in_the_tasks_alone():
    pair = load_shipped_pair()
    assert pair.with_tasks.config.objective.intra_class_triplet > 0
    assert pair.without_tasks.config == override(replace(START, config=pair.with_tasks.config), TASKS_OFF).config
    different = [
        name
        for name, tensor in pair.without_tasks.network.state_dict().items()
        if not torch.equal(tensor, pair.with_tasks.network.state_dict()[name])
    ]
    assert any(name.startswith("panoptic_feature") for name in different)


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """A finished sweep of Table 3 with two seeds and random networks."""
    folder = tmp_path_factory.mktemp("swept")
    generate(folder / "data", num_train=1, num_val=2, size=(64, 128), progress=False)
    categories = open_dataset(folder / "data", "val").categories
    base = differences(START.config, PRESETS["tiny"])
    plan = make_plan(preset="tiny", data=folder / "data", groups=("table3",), seeds=(0, 1), base=base)
    write_json(asdict(plan), folder / "sweep" / PLAN)
    for name, run in plan.runs.items():
        config, place = plan.config(run), folder / "sweep" / name
        torch.manual_seed(run.seed)
        save_model(build_model(config, categories), place / "model.safetensors")
        objective = Objective(config=config.objective, feature_channels=16)
        save_objective(objective, config, place / "auxiliary.safetensors")
        with_tasks = config.objective.intra_class_triplet > 0
        record = new_record(
            experiment=run.experiment,
            seed=run.seed,
            config=to_dict(config),
            data={"name": "data", "fingerprint": ""},
            iterations=1,
            hours=0.0,
            metrics={"features": {"distance_ratio": 0.9 - 0.1 * run.seed - 0.3 * with_tasks, "contour_f": None}},
        )
        record["base"] = to_dict(START.config)
        write_record(record, place / RECORD)
        (place / NOTEBOOK.name).touch()
    return folder / "sweep"


def test_the_pairs_of_a_sweep_are_its_runs_with_and_without_both_tasks(swept):
    runs = find_pairs(swept)
    assert runs.data == swept.parent / "data"
    assert (runs.with_tasks.keys(), runs.without_tasks.keys()) == ({0, 1}, {0, 1})
    for seed in (0, 1):
        first, second = (load_model(of[seed] / "model.safetensors") for of in (runs.with_tasks, runs.without_tasks))
        assert (first.config.train.seed, second.config.train.seed) == (seed, seed)
        assert second.config == override(replace(START, config=first.config), TASKS_OFF).config
    pair = runs.load()
    assert (runs.seed, pair.with_tasks.config.train.seed) == (0, 0)
    assert pair.with_tasks.config.objective.multi_class_dice  # not the row without any loss


def test_what_is_no_finished_sweep_of_table_3_is_refused(swept, tmp_path):
    with pytest.raises(ExperimentError, match="cannot be read"):
        find_pairs(tmp_path)
    plan = Plan.read(swept / PLAN)
    other = tmp_path / "other"
    fewer = replace(plan, runs={name: run for name, run in plan.runs.items() if run.experiment != "full"})
    write_json(asdict(fewer), other / PLAN)
    for name in plan.runs:
        (other / name).symlink_to(swept / name)
    with pytest.raises(ExperimentError, match=r"no run of the row .*L_intra' of Table 3; .*--groups table3"):
        find_pairs(other)
    begun = tmp_path / "begun"
    write_json(asdict(plan), begun / PLAN)
    with pytest.raises(ExperimentError, match="not done"):
        find_pairs(begun)


def test_the_film_of_a_run_has_a_frame_for_each_snapshot(tmp_path):
    generate(tmp_path / "data", num_train=1, num_val=1, size=(64, 128), progress=False)
    assert film(tmp_path, tmp_path / "data") == []  # a run without snapshots
    categories = open_dataset(tmp_path / "data", "val").categories
    for iteration in (0, 2, 5):
        torch.manual_seed(iteration)
        place = tmp_path / SNAPSHOTS / f"{iteration:07}"
        save_model(build_model(START.config, categories), place / "model.safetensors")
        objective = Objective(config=START.config.objective, feature_channels=16)
        save_objective(objective, START.config, place / "auxiliary.safetensors")
    (path,) = film(tmp_path, tmp_path / "data")
    with Image.open(path) as movie:
        assert movie.n_frames == 3


def test_a_training_on_four_scenes_stands_beside_perfect_outputs():
    log = {"iteration": [1.0, 2.0, 3.0], "class": [2.0, 1.0, 0.5], "things": [4.0, 3.0, 2.0]}
    figure = learned_by_heart(log, {"PQ": 74.0, "PQ_th": 59.0}, {"PQ": 82.0, "PQ_th": 77.0, "SQ": 90.0}, window=1)
    terms, bars = figure.axes
    assert [np.asarray(line.get_ydata()).tolist() for line in terms.lines] == [[1, 0.5, 0.25], [1, 0.75, 0.5]]
    assert [bar.get_height() for bar in bars.patches] == [74, 59, 82, 77]


# --- the command ------------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The output folder of the command; its scenes are small."""
    monkeypatch.setattr(command, "SIZE", (64, 128))
    monkeypatch.setattr(command, "SCENES", 1)
    monkeypatch.setattr(command, "FOLDER", tmp_path / "figures")
    monkeypatch.setattr(command, "RUNS", tmp_path / "figures" / "runs")
    return tmp_path / "figures"


def written(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def files(*names):
    return {f"{name}.{kind}" for name in names for kind in ("json", "png", "svg")}


def test_command_writes_the_same_bytes_twice_and_says_what_is_missing(folder, capsys):
    command.main(["published", "ablations", "feature_metrics", "training"])
    first = written(folder)
    command.main(["published", "ablations"])
    assert written(folder) == first
    assert first.keys() == files("published", "ablations")
    said = capsys.readouterr().out
    assert "feature_metrics: not changed: " in said
    assert "training: not changed: " in said
    with pytest.raises(SystemExit, match=r"no figure 'figure_9'; there are figure_1"):
        command.main(["figure_9"])
    with pytest.raises(SystemExit, match=r"error: .*plan.json: cannot be read"):
        command.main(["published", "--sweep", str(folder)])


def test_figures_of_a_sweep_name_its_runs(folder, swept, monkeypatch):
    monkeypatch.setattr(command, "POINTS", 4)
    monkeypatch.setattr(command, "RUNS", swept)
    monkeypatch.setattr(command, "FOLDER", swept.parent)
    names = ["figure_5", "feature_map", "feature_metrics"]
    command.main([*names, "--sweep", str(swept)])
    folder = swept.parent
    first = {path.name: path.read_bytes() for path in folder.iterdir() if path.name in files(*names)}
    assert first.keys() == files(*names)
    command.main([*names, "--sweep", str(swept)])
    assert {name: (folder / name).read_bytes() for name in first} == first
    runs = find_pairs(swept)
    for name in names:
        sources = json.loads(first[f"{name}.json"])["sources"]
        of_seed = [f"{swept.name}/{of[0].name}" for of in (runs.with_tasks, runs.without_tasks)]
        assert all(any(source.startswith(run) for source in sources) for run in of_seed)
        assert any("-s1-" in source for source in sources) == (name == "feature_metrics")


def test_paired_dots_join_runs_with_one_seed():
    without, with_tasks = {0: 0.5, 1: 0.6, 2: 0.9}, {0: 0.3, 1: 0.5}
    panels = {"ratio": (without, with_tasks), "of one row": ({}, {0: 0.7})}
    figure = paired_dots(panels, names=("without", "with"), chance={"of one row": 0.25})
    first, second = figure.axes[:2]
    assert [0.25, 0.25] in [list(line.get_ydata()) for line in second.lines]
    *pairs, unpaired, mean_without, mean_with = [list(line.get_ydata()) for line in first.lines]
    assert pairs == [[0.5, 0.3], [0.6, 0.5]]
    assert unpaired == [0.9]
    assert np.nanmean(mean_without) == pytest.approx(2 / 3)
    assert np.nanmean(mean_with) == pytest.approx(0.4)
    assert dots(first) == [(0, 0.5), (0, 0.6), (0, 0.9), (1, 0.3), (1, 0.5)]
    assert dots(second) == [(1, 0.7)]
    assert [text.get_text() for text in second.get_xticklabels()] == ["without", "with"]
    assert first.get_title() == "ratio"
