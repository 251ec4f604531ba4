"""§5.4 The experiments: settings of the rows, their runs, and small losses after a kill."""

from __future__ import annotations

import contextlib
import csv
import math
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from threading import Thread
from typing import Any

import nbformat
import papermill
import psutil
import pytest

from spinet.cli import configure
from spinet.config import COCO_R50, PRESETS, TINY, ConfigError, to_dict
from spinet.config.baselines import TITLES
from spinet.config.overrides import differences, override, parse_overrides, system_of
from spinet.data import open_dataset
from spinet.evaluation.validate import validate
from spinet.experiments.campaigns import find_campaigns
from spinet.experiments.run import BEGUN, execute, run_notebook
from spinet.experiments.sweep import NOTEBOOK, ExperimentError, Plan, Run, make_plan, share, sweep
from spinet.experiments.tables import CAMPAIGNS, LOSSES, PAPER_GROUPS, PAPER_PARTS, TABLES, find_campaign
from spinet.files import LockError, write_json
from spinet.options import parse
from spinet.paper import TABLE_1, TABLE_3, TABLE_4, TABLE_5
from spinet.records import describe_data, new_record, read_record, write_record
from spinet.speed.accounting import count_parameters
from spinet.synthcity import generate
from spinet.systems import build_model
from spinet.training.checkpoint import TrainError, find_checkpoints
from spinet.training.launch import train_command, train_on_processes
from spinet.training.loop import train
from spinet.training.outcome import RECORD
from spinet.weights import SHIPPED, load_model, save_model

MICRO = {
    "model.fpn_channels": 16,
    "model.filter_channels": 16,
    "model.feature_channels": 16,
    "model.head_convs": 1,
    "input.crop": [64, 128],
    "input.scale": [0.8, 1.2],
    "input.workers": 0,
    "train.batch_size": 2,
    "train.images_per_device": 2,
    "train.reference_batch": 2,
    "train.precision": "fp32",
    "train.checkpoint_every": 2,
    "train.iterations": 4,
    "train.warmup": 2,
}
START = PRESETS["tiny"]
STAND_IN = """
import json, time
from pathlib import Path

folder = Path(out)
here = folder.parent.parent
with (here / "executed.txt").open("a") as file:
    file.write(experiment + "\\n")
if experiment == "separate":
    while (here / "wait").exists():
        time.sleep(0.1)
record = json.loads((here / f"{experiment}.json").read_text())
(folder / "record.json").write_text(json.dumps(record))
"""
"""A notebook that copies its records from files, so that a sweep needs no training."""


@pytest.fixture(scope="module")
def city(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("city")
    generate(root, num_train=4, num_val=3, size=(64, 128), progress=False)
    return root


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def micro_plan(city: Path, *groups: str, **changed: Any) -> Plan:
    return make_plan(preset="tiny", data=city, groups=groups, seeds=(0,), base={**MICRO, **changed})


def write_notebook(path: Path, *sources: str, tagged: bool = True) -> Path:
    """A notebook with the parameters of `52_training`, unless `tagged` is False, and these cells."""
    cells = [nbformat.v4.new_code_cell(source) for source in sources]
    if tagged:
        names = Plan("tiny", "", {}, {}).parameters(Run("", 0, {}, ""), path)
        head = nbformat.v4.new_code_cell(
            "\n".join(f"{name} = None" for name in names), metadata={"tags": ["parameters"]}
        )
        cells.insert(0, head)
    metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=metadata), path)
    return path


def leave_record(plan: Plan, run: Run, folder: Path) -> None:
    """The records for `STAND_IN`."""
    config = to_dict(plan.config(run))
    record = new_record(experiment=run.experiment, seed=0, config=config, data={}, iterations=4, hours=0, metrics={})
    write_record(record, folder / f"{run.experiment}.json")


def wait_for(condition: Callable[[], Any], what: str, seconds: float = 240) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.05)
    return found


def losses(folder: Path) -> list[dict[str, float]]:
    with (folder / "log.csv").open() as file:
        return [
            {name: float(value) for name, value in row.items() if name != "seconds"} for row in csv.DictReader(file)
        ]


# --- experiments as data


def test_rows_are_the_papers():
    for row, published in zip(LOSSES.rows, TABLE_3, strict=True):
        objective = override(PRESETS["cityscapes_r50"], row.overrides).config.objective
        assert row.paper == published.quality
        assert objective.multi_class_dice == published.multi_class_dice
        assert (objective.inter_class_contour > 0) == published.inter_class_contour
        assert (objective.intra_class_triplet > 0) == published.intra_class_triplet
    for row, published in zip(TABLES["table4"].rows, TABLE_4, strict=True):
        model = override(PRESETS["coco_r50"], row.overrides).config.model
        assert (model.feature_levels, model.filter_levels) == (published.feature_levels, published.filter_levels)
    for row, published in zip(TABLES["table5"].rows, TABLE_5, strict=True):
        assert override(START, row.overrides).config.model.separate == (not published.integrated)
        assert row.paper is not None
        assert row.paper.pq == published.pq
    for row, published in zip(TABLES["deformable"].rows, TABLE_1[-2:], strict=True):
        assert override(PRESETS["cityscapes_r50"], row.overrides).config.model.deformable == published.deformable
        assert row.paper == published.cityscapes


def test_every_row_makes_a_network_and_has_a_name_of_its_own():
    rows = [row for table in TABLES.values() for row in table.rows]
    assert len({row.name for row in rows}) == len(rows)
    models = {override(PRESETS["cityscapes_r50"], row.overrides).config.model for row in rows}
    sizes = [count_parameters(model, num_things=8, num_stuff=19) for model in models]
    assert len(models) > 10
    assert min(sizes) > 1e6
    integrated = [
        override(START, row.overrides).config.baseline for row in TABLES["condinst"].rows if "integrated" in row.name
    ]
    assert [baseline.channels for baseline in integrated] == [8, 16, 32, 64, 128, 256]
    assert all(baseline.integrated for baseline in integrated)
    assert {group for groups in PAPER_GROUPS.values() for group in groups} <= TABLES.keys()
    assert PAPER_GROUPS.keys() == PRESETS.keys()


def test_overrides_are_checked_and_named():
    config = override(START, {"train.iterations": 7, "input.crop": [64, 128]}).config
    assert config == replace(TINY, train=replace(TINY.train, iterations=7), input=replace(TINY.input, crop=(64, 128)))
    assert differences(config, START) == {"train.iterations": 7, "input.crop": [64, 128]}
    with pytest.raises(ConfigError, match=r"'train.iteration'; did you mean 'train.iterations'"):
        override(START, {"train.iteration": 7})
    for system in ({}, {"system": "upsnet"}):
        with pytest.raises(ConfigError, match=r"^baseline.relative exists only with system condinst; set the system"):
            override(START, {**system, "baseline.relative": False})
    with pytest.raises(ConfigError, match=r"objective.sampling.*'everywhere'"):
        override(START, {"objective.sampling": "everywhere"})
    texts = ["train.iterations=7", "input.crop=[64,128]", "model.backbone=resnet18", "model.reach=null"]
    assert list(parse_overrides(texts).values()) == [7, [64, 128], "resnet18", None]
    for wrong in ("train.iterations", "=3"):
        with pytest.raises(ConfigError, match=r"write section\.field=value"):
            parse_overrides([wrong])
    with pytest.raises(ConfigError, match="set twice"):
        parse_overrides(["train.seed=1", "train.seed=2"])


@pytest.mark.filterwarnings("error")
def test_the_command_line_says_the_same():
    """Runs on several processes are started by `spinet train`, with their settings as its options."""
    for table in TABLES.values():
        for row in table.rows:
            wanted = override(START, {**MICRO, **row.changes(TINY), "model.reach": None, "input.crop": None}).config
            base = {**MICRO, "train.seed": 3}
            command = train_command("tiny", "D", Path("O"), base, differences(wanted, override(START, base)))
            options = parse(command[1:])
            fields = {name: value for name, value in options.items() if "." in name}
            config, start = configure("tiny", system=options["system"], init=None, base=options["base"], fields=fields)
            assert (config, start) == (wanted, override(START, {**base, "train.seed": config.train.seed}).config)


def test_a_sweep_can_start_from_trained_weights(city: Path, tmp_path: Path):
    plan = make_plan(preset="tiny", data=city, groups=["table5"], seeds=(0,), base={}, init=SHIPPED)
    separate, integrated = plan.runs.values()
    network = load_model(SHIPPED).config.model
    assert plan.config(integrated).model == network
    assert plan.config(separate).model == replace(network, separate=True)
    parameters = plan.parameters(separate, tmp_path)
    command = train_command("tiny", city, tmp_path, plan.base, separate.overrides, parameters["init"])
    options = parse(command[1:])
    fields = {name: value for name, value in options.items() if "." in name}
    config, _ = configure("tiny", system=None, init=options["init"], base=options["base"], fields=fields)
    assert config == plan.config(separate)

    path = tmp_path / "other.safetensors"
    save_model(build_model(plan.config(integrated), open_dataset(city, "val").categories), path)
    other = make_plan(preset="tiny", data=city, groups=["table5"], seeds=(0,), base={}, init=path)
    assert not plan.runs.keys() & other.runs.keys()  # other weights make other runs

    records = []
    for sha256 in ("a", "b"):
        record = new_record(
            experiment="full",
            seed=0,
            config=to_dict(plan.config(integrated)),
            data={"name": "city", "fingerprint": "c"},
            iterations=1,
            hours=0,
            metrics={"PQ": 1.0},
        )
        records.append(record | {"base": record["config"], "init": {"file": "w", "sha256": sha256}})
    assert [len(campaign.records) for campaign in find_campaigns(records)] == [1, 1]


def test_systems_are_overrides_too():
    start = PRESETS["coco_r50"]
    config = override(start, {"train.learning_rate": 0.02, "system": "upsnet"}).config
    assert config == replace(
        PRESETS["coco_r50"].with_system("upsnet"), train=replace(COCO_R50.train, learning_rate=0.02)
    ), "the system comes first, whatever the order"
    assert differences(config, start) == {"system": "upsnet", "train.learning_rate": 0.02}
    assert override(replace(start, config=config), {"system": "spinet"}).config.baseline is None
    for changed in ({"train.seed": 3}, {"objective.things": 2.0}):
        upsnet = override(override(start, changed), {"system": "upsnet"}).config
        assert upsnet.baseline == start.with_system("upsnet").baseline, "COCO's own numbers, whatever else is changed"
    with pytest.raises(ConfigError, match="no system 'maskformer'"):
        override(START, {"system": "maskformer"})


def test_campaigns_are_settings_of_the_small_preset():
    for name in CAMPAIGNS:
        assert differences(override(START, find_campaign(name)).config, START) == find_campaign(name)
    with pytest.raises(ConfigError, match="no campaign 'kitti'; there are synthcity, dsb2018"):
        find_campaign("kitti")


# --- plans


def test_equal_settings_are_one_run_whatever_is_asked_for(city: Path):
    both = micro_plan(city, "table3", "table5")
    assert [run.experiment for run in both.runs.values()] == [*(row.name for row in LOSSES.rows), "separate"]
    alone = micro_plan(city, "table5")
    assert alone.runs.keys() == {name for name, run in both.runs.items() if run.experiment in ("separate", "full")}
    seeds = make_plan(preset="tiny", data=city, groups=["table5"], seeds=(0, 1, 2), base=MICRO)
    assert len(seeds.runs) == 6
    assert seeds.runs.keys() >= alone.runs.keys()


def test_a_changed_setting_changes_the_runs_that_depend_on_it_and_no_others(city: Path):
    before, after = (
        micro_plan(city, "contour", "table3", **changed) for changed in ({}, {"objective.contour_sigma": 2.0})
    )
    unchanged = before.runs.keys() & after.runs.keys()
    assert {before.runs[name].experiment for name in unchanged} == {"contour-binary"}
    assert micro_plan(city, "contour", "table3").runs.keys() == before.runs.keys()
    annotations = city / "gtFine" / "cityscapes_panoptic_train.json"
    original = annotations.read_bytes()
    annotations.write_bytes(original + b"\n")
    assert not micro_plan(city, "contour", "table3").runs.keys() & before.runs.keys()
    annotations.write_bytes(original)


def test_runs_that_differ_in_inference_alone_are_trained_once(city: Path):
    plan = micro_plan(city, "table5", "duplicates")
    sources = {run.experiment: run.source and plan.runs[run.source].experiment for run in plan.runs.values()}
    assert sources == {"separate": None, "full": None, "duplicates-none": "full", "duplicates-mask": "full"}


def test_rows_can_be_chosen_and_stay_the_same_runs(city: Path):
    every = micro_plan(city, "table3", "table5")
    some = make_plan(
        preset="tiny", data=city, groups=["table3", "table5"], rows=["dice", "integrated"], seeds=(0,), base=MICRO
    )
    assert [run.experiment for run in some.runs.values()] == ["dice", "full"]
    assert some.runs.keys() <= every.runs.keys()


def searched(city: Path, scores: dict[str, list[float]]) -> list[dict[str, Any]]:
    """Records of the search, with these PQ values at the rates of each system."""
    plan = micro_plan(city, "rates")
    annotations = [city / "gtFine" / f"cityscapes_panoptic_{split}.json" for split in ("train", "val")]
    records = []
    for run in plan.runs.values():
        config = plan.config(run)
        system = TITLES[system_of(config)]
        place = round(math.log(config.train.learning_rate / TINY.train.learning_rate, 3)) + 1
        if system in scores:
            record = new_record(
                experiment=run.experiment,
                seed=0,
                config=to_dict(config),
                data=describe_data(city, splits={"train": 4, "val": 3}, paths=annotations),
                iterations=4,
                hours=0,
                metrics={"PQ": scores[system][place]},
            )
            records.append({**record, "base": to_dict(override(START, {**plan.base, "train.seed": run.seed}).config)})
    return records


def test_systems_take_the_rate_that_the_search_found(city: Path):
    scores = {title: [10.0, 12.0, 11.0, 0.0, 0.0] for title in TITLES.values()}
    scores |= {"UPSNet": [3.0, 2.0, 1.0, 0.0, 0.0], "SPINet": [1.0, 2.0, 3.0, 2.0, 0.0]}
    records = searched(city, scores)
    assert len(records) == 30
    settings: dict[str, Any] = {"preset": "tiny", "data": city, "groups": ["table1"], "base": MICRO}
    plan = make_plan(**settings, seeds=(0, 1), records=records)
    rates = {
        ("-paper" in run.experiment, system_of(config), run.seed): round(config.train.learning_rate, 6)
        for run in plan.runs.values()
        for config in [plan.config(run)]
    }
    found = {"spinet": 0.003, "panoptic_fpn": 0.001, "panoptic_deeplab": 0.001, "upsnet": 0.0003, "condinst": 0.001}
    expected = {(False, system, seed): rate for system, rate in found.items() for seed in (0, 1)}
    assert rates == {**expected, (True, "spinet", 0): 0.003, (True, "spinet", 1): 0.003}
    assert {name for name in plan.runs if "-s0-" in name} <= micro_plan(city, "rates").runs.keys(), "not run again"

    needs = "table1: no search of the learning rate for CondInst.*; run --groups rates --seeds 0 with the same"
    lacking = searched(city, {title: of for title, of in scores.items() if "CondInst" not in title})
    for wrong in ([], lacking, [*lacking, *(record | {"status": "running"} for record in records)]):
        with pytest.raises(ConfigError, match=needs if wrong else "no search"):
            make_plan(**settings, seeds=(0,), records=wrong)
    fewer = [record for record in records if not record["experiment"].endswith("rate-10")]
    with pytest.raises(ConfigError, match="run --groups rates --rows spinet-rate-10 spinet-paper-rate-10 --seeds 0"):
        make_plan(**settings, seeds=(0,), records=fewer)
    assert make_plan(**settings, seeds=(0,), records=fewer, rows=["panoptic_fpn", "upsnet"]).runs
    some = make_plan(**settings, seeds=(0,), records=lacking, rows=["spinet", "upsnet"])
    assert {system_of(some.config(run)) for run in some.runs.values()} == {"spinet", "upsnet"}
    with pytest.raises(ConfigError, match="no search of the learning rate for SPINet, Panoptic-FPN"):
        make_plan(**{**settings, "base": {**MICRO, "train.iterations": 5}}, seeds=(0,), records=records)
    plain = make_plan(**{**settings, "groups": ["rates"], "base": {**MICRO, **PAPER_PARTS}}, seeds=(0,))
    assert len(plain.runs) == 25, "SPINet has no other parts: one row"


def test_plans_survive_being_written(city: Path, tmp_path: Path):
    plan = micro_plan(city, "table3")
    write_json(asdict(plan), tmp_path / "plan.json")
    assert Plan.read(tmp_path / "plan.json") == plan
    (tmp_path / "plan.json").write_text('{"runs": {}, "colour": "red"}')
    with pytest.raises(ExperimentError, match=r"plan.json: not the plan of a sweep"):
        Plan.read(tmp_path / "plan.json")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"groups": ["table9"]}, "no group of experiments 'table9'; there are table3"),
        ({"groups": []}, "no group of experiments is named"),
        ({"rows": ["separate"]}, "no row 'separate' in table3; there are no-losses, dice"),
        (
            {"preset": "cityscapes_r50", "groups": ["rates"], "rows": ["spinet-paper-rate-1"]},
            "spinet-paper-rate-1: these settings have no parts beyond the paper",
        ),
        ({"preset": "huge"}, "no preset 'huge'"),
        ({"seeds": ()}, "no seed"),
        ({"base": {"train.seed": 3}}, "give --seeds"),
        ({"base": {"train.iteration": 3}}, "did you mean 'train.iterations'"),
        ({"base": {"objective.inter_class_contour": 0.0}}, "table3: the rows 'M.C.D' and .* are the same run"),
        ({"preset": "coco_r50"}, "table3: the rows .* are the same run"),  # §5.2: no contour loss on COCO
    ],
)
def test_wrong_sweeps_are_refused(city: Path, arguments: dict[str, Any], message: str):
    with pytest.raises(ConfigError, match=message):
        make_plan(**{"preset": "tiny", "data": city, "groups": ["table3"], "seeds": (0,), "base": {}, **arguments})


def test_a_row_that_does_not_fit_the_network_stops_a_sweep_before_it_starts(city: Path, tmp_path: Path):
    asked: dict[str, Any] = {"data": city, "out": tmp_path, "groups": ("deformable",)}
    sweep(**asked, overrides={"model.backbone": "resnet18"}, dry_run=True)
    with pytest.raises(ConfigError, match=r"^deformable: model.deformable needs a ResNet, model.backbone is 'tf_"):
        sweep(**asked, overrides={"model.backbone": "tf_efficientnet_lite0"})
    assert not list(tmp_path.glob("deformable*"))


def test_gpus_are_shared_by_the_batch():
    paper = PRESETS["cityscapes_r50"].config.train
    assert [share(paper, gpus) for gpus in (0, 1, 3, 8, 12)] == [1, 1, 2, 8, 8]
    assert share(TINY.train, 8) == 1


# --- the driver


def test_notebook_and_driver_agree_on_the_parameters(city: Path, tmp_path: Path):
    """Papermill only warns if a notebook does not have a parameter."""
    known = papermill.inspect_notebook(str(NOTEBOOK))
    assert known.keys() == Plan("tiny", "", {}, {}).parameters(Run("", 0, {}, ""), tmp_path).keys()
    with pytest.raises(ExperimentError, match=r"none.ipynb: no such file"):
        sweep(data=city, out=tmp_path, groups=["table5"], notebook=tmp_path / "none.ipynb")


def test_a_failed_cell_is_shown_with_its_notebook(tmp_path: Path):
    broken = write_notebook(tmp_path / "broken.ipynb", "1 + 1", "seed / 0")
    with pytest.raises(ExperimentError) as caught:
        run_notebook(broken, tmp_path / "out.ipynb", parameters={"seed": 3}, timeout=60)
    assert "out.ipynb: cell [4] failed:\n    seed / 0\nZeroDivisionError" in str(caught.value)
    executed = nbformat.read(tmp_path / "out.ipynb", as_version=4)
    assert "seed = 3" in "".join(cell.source for cell in executed.cells)


def test_a_killed_kernel_is_started_again_and_a_slow_cell_is_not(tmp_path: Path):
    dies_once = (
        "from pathlib import Path; import os\nif not Path('x').exists(): Path('x').touch(); os.kill(os.getpid(), 9)"
    )
    run_notebook(
        write_notebook(tmp_path / "a.ipynb", dies_once, "seed"),
        tmp_path / "b.ipynb",
        parameters={"seed": 5},
        timeout=60,
    )
    assert nbformat.read(tmp_path / "b.ipynb", as_version=4).cells[-1].outputs[0].data["text/plain"] == "5"
    slow = write_notebook(tmp_path / "c.ipynb", "import time; time.sleep(60)")
    with pytest.raises(ExperimentError, match=r"d.ipynb: a cell took more than .* hours; call again"):
        run_notebook(slow, tmp_path / "d.ipynb", parameters={}, timeout=1)


def test_a_folder_with_another_run_is_left_alone(city: Path, tmp_path: Path):
    plan = micro_plan(city, "table5")
    run = next(iter(plan.runs.values()))
    other = to_dict(override(replace(START, config=plan.config(run)), {"train.iterations": 5}).config)
    record = new_record(experiment="x", seed=0, config=other, data={}, iterations=5, hours=0, metrics={})
    folder = tmp_path / run.name
    write_record(record, folder / RECORD)
    before = {path: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(ExperimentError, match=r"record.json: has other settings than the experiment 'separate'"):
        execute(plan, run.name, tmp_path)
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


def test_a_killed_run_goes_on_and_its_training_is_shared(city: Path, tmp_path: Path):
    """The real notebook: its kernel is killed and started again; then a run that differs only in inference."""
    plan = replace(micro_plan(city, "duplicates", **{"train.iterations": 60}), timeout_hours=0.2)
    names = {run.experiment: name for name, run in plan.runs.items()}
    trained = next(run for run in plan.runs.values() if run.source is None)
    folder = tmp_path / trained.name
    write_json(asdict(plan), tmp_path / "plan.json")
    driver = subprocess.Popen(
        [sys.executable, "-m", "spinet.experiments.run", str(tmp_path / "plan.json"), trained.name],
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for(lambda: find_checkpoints(folder), "the first checkpoint")
    kernel = next(p for p in psutil.Process(driver.pid).children() if "ipykernel_launcher" in " ".join(p.cmdline()))
    kernel.kill()
    assert not (folder / NOTEBOOK.name).exists()
    said = driver.communicate(timeout=400)[1]
    assert driver.returncode == 0, said
    assert "attempt 1 of 3" in said
    assert plan.is_done(trained, folder)
    assert not (folder / BEGUN).exists()
    assert [row["iteration"] for row in losses(folder)] == [*range(1, 61)]
    record = read_record(folder / RECORD)
    assert record["base"] == to_dict(override(START, {**plan.base, "train.seed": 0}).config)
    assert record["metrics"]["features"]["images"] == 3

    other = plan.runs[names["duplicates-mask"]]
    execute(plan, other.name, tmp_path)
    assert read_record(tmp_path / other.name / RECORD)["config"]["inference"]["duplicates"] == "mask"
    assert (tmp_path / other.name / "log.csv").read_bytes() == (folder / "log.csv").read_bytes()

    # the same run by `spinet train`: the same record, except date and run time
    command = train_command("tiny", city, tmp_path / "alone", {**plan.base, "train.seed": 0}, trained.overrides)
    subprocess.run(
        [sys.executable, "-m", "spinet.cli", *command[1:], "--experiment", trained.experiment],
        check=True,
        capture_output=True,
    )
    alone = read_record(tmp_path / "alone" / RECORD)
    assert alone.keys() == record.keys()
    assert alone["metrics"].keys() == record["metrics"].keys()
    for name in ("experiment", "seed", "status", "config", "base", "data", "iterations", "history", "init"):
        assert alone[name] == record[name], name
    assert alone["metrics"]["features"] == record["metrics"]["features"]


# --- the sweep


def test_a_killed_sweep_goes_on_and_repeats_nothing(city: Path, tmp_path: Path):
    notebook = write_notebook(tmp_path / "stand_in.ipynb", STAND_IN)
    out = tmp_path / "sweep"
    settings = {"data": str(city), "groups": ["table5"], "overrides": MICRO, "workers": 2, "notebook": str(notebook)}
    plan = micro_plan(city, "table5")
    for run in plan.runs.values():
        record = new_record(
            experiment=run.experiment,
            seed=0,
            config=to_dict(plan.config(run)),
            data={},
            iterations=4,
            hours=0,
            metrics={},
        )
        write_record(record, tmp_path / f"{run.experiment}.json")
    (tmp_path / "wait").touch()
    done, waiting = (next(n for n in plan.runs if n.startswith(start)) for start in ("full", "separate"))
    code = f"from spinet.experiments.sweep import sweep; sweep(out={str(out)!r}, **{settings!r})"
    first = psutil.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
    wait_for((out / done / "stand_in.ipynb").exists, "the first run")
    wait_for(lambda: "separate" in (tmp_path / "executed.txt").read_text(), "the second run's first cell")
    assert (out / waiting / BEGUN).exists()
    finished = (out / done / "stand_in.ipynb").read_bytes()

    snakemake = next(p for p in first.children() if "snakemake" in " ".join(p.cmdline()))
    orphans = [p for p in snakemake.children(recursive=True) if p.is_running()]
    snakemake.kill()
    first.kill()
    first.wait()
    with pytest.raises(LockError, match=rf"{waiting}/.at_work: in use by process \d+ on .*; wait until it ends"):
        sweep(out=out, **settings)
    for process in orphans:
        with contextlib.suppress(psutil.NoSuchProcess):  # ended with its parent
            process.kill()
    psutil.wait_procs(orphans, timeout=60)

    (tmp_path / "wait").unlink()
    assert {folder.name for folder in sweep(out=out, **settings)} == {done, waiting}
    assert (out / done / "stand_in.ipynb").read_bytes() == finished
    assert (out / waiting / "stand_in.ipynb").exists()
    executed = (tmp_path / "executed.txt").read_text().split()
    assert executed.count("full") == 1
    assert executed.count("separate") == 2


def test_a_failure_is_told_and_finished_runs_are_kept(city: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    notebook = write_notebook(tmp_path / "stand_in.ipynb", STAND_IN)
    plan = micro_plan(city, "table5")
    failing, finished = plan.runs.values()
    folder = tmp_path / "out" / finished.name
    leave_record(plan, finished, tmp_path)
    folder.mkdir(parents=True)
    (tmp_path / f"{finished.experiment}.json").rename(folder / RECORD)
    (folder / notebook.name).write_text("executed before")
    with pytest.raises(ExperimentError, match=r"1 of 2 runs failed: separate-s0-\w+; .*snakemake.log"):
        sweep(data=city, out=tmp_path / "out", groups=["table5"], overrides=MICRO, workers=2, notebook=notebook)
    assert (folder / notebook.name).read_text() == "executed before"
    assert {path.name for path in (tmp_path / "out" / failing.name).iterdir()} == {BEGUN, "failure.txt"}
    said = capsys.readouterr().err
    assert f"{BEGUN}: cell [3] failed" in said
    assert "FileNotFoundError" in said


# --- several processes


def test_a_killed_worker_is_replaced_and_training_goes_on(city: Path, tmp_path: Path):
    """Two gloo processes; one is killed, and torchrun restarts both from the checkpoint of process 0."""
    settings = {**MICRO, "train.iterations": 20}
    killed: list[int] = []

    def is_second(process: psutil.Process) -> bool:
        try:
            return process.environ().get("RANK") == "1"
        except psutil.Error:  # ended in the meantime
            return False

    def kill_one() -> None:
        wait_for(lambda: find_checkpoints(tmp_path / "two"), "the first checkpoint")
        worker = next(filter(is_second, psutil.Process().children(recursive=True)))
        worker.kill()
        killed.append(worker.pid)

    killer = Thread(target=kill_one)
    killer.start()
    record = train_on_processes(
        2, preset="tiny", data=city, out=tmp_path / "two", experiment="elastic", base={}, overrides=settings
    )
    killer.join()
    assert killed, "nothing was killed"
    assert "failed (exitcode: -9)" in (tmp_path / "two" / "torchrun.log").read_text()
    assert record["status"] == "finished"
    assert record["device"]["processes"] == 2
    assert len(losses(tmp_path / "two")) == 20
    train(override(START, settings).config, data=city, out=tmp_path / "one")
    for one, two in list(zip(losses(tmp_path / "one"), losses(tmp_path / "two"), strict=True))[:6]:
        assert two == pytest.approx(one, rel=1e-3, abs=1e-5)
    # three images on two processes: each counts exactly once
    alone = validate(load_model(tmp_path / "two" / "model.safetensors"), open_dataset(city, "val"))
    for name in ("All", "Things", "Stuff", "images"):
        assert record["metrics"][name] == alone[name]
    assert {name: record["metrics"][name] for name in alone["summary"]} == alone["summary"]
    assert list(record["metrics"]["per_class"].values()) == list(alone["per_class"].values())


def test_failed_processes_say_why(tmp_path: Path):
    with pytest.raises(TrainError, match=r"torchrun.log: training on 1 processes failed: error: .*nowhere"):
        train_on_processes(
            1,
            preset="tiny",
            data=tmp_path / "nowhere",
            out=tmp_path,
            experiment="x",
            base={},
            overrides=MICRO,
            restarts=0,
        )
