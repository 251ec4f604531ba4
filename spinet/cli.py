"""The command line: reads arguments, calls the package, prints what it says."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import io
import json
import logging
import os
import signal
import sys
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from spinet.config import (
    PRESETS,
    Config,
    ConfigError,
    InferenceConfig,
    InputConfig,
    ModelConfig,
    ObjectiveConfig,
    PresetName,
    TrainConfig,
)
from spinet.config.baselines import BASELINES, AnyBaseline, System
from spinet.speed.memory import keep_freed_memory
from spinet.training.interruption import Terminated, raise_on_sigterm

Positional = tyro.conf.Positional


@dataclass
class Info:
    """Parameters and multiply-accumulates of a preset's network, beside the paper's."""

    preset: PresetName = "cityscapes_r50"
    system: System = "spinet"
    """SPINet, or a system that the paper compares with: parameters only."""
    json: bool = False
    """Print JSON only."""

    def run(self) -> None:
        from spinet.speed.accounting import compare_with_paper, describe, describe_baseline

        ours = self.system == "spinet"
        description = describe(self.preset) if ours else describe_baseline(self.system, self.preset)
        if self.json:
            print(json.dumps(description, indent=1))
            return
        for key, value in description.items():
            print(f"{key:24} {value:>20,}" if isinstance(value, int) else f"{key:24} {value!s:>20}")
        if self.preset == "cityscapes_r50" and ours:
            print_table(compare_with_paper(description))


@dataclass
class Synth:
    """Makes SynthCity, the embedded synthetic city, in the layout of Cityscapes."""

    out: Positional[Path]
    num_train: int = 600
    num_val: int = 100
    size: tuple[int, int] = (256, 512)
    """Height and width, pixels."""
    seed: int = 0
    workers: int = os.cpu_count() or 1

    def run(self) -> None:
        from spinet.synthcity import generate

        generate(
            self.out,
            num_train=self.num_train,
            num_val=self.num_val,
            size=self.size,
            seed=self.seed,
            workers=self.workers,
        )


@dataclass
class Prepare:
    """Makes what a data set's training needs and its download lacks."""

    layout: Positional[Literal["cityscapes"]]
    root: Positional[Path]

    def run(self) -> None:
        from spinet.data.prepare import prepare_cityscapes

        for made in prepare_cityscapes(self.root):
            print(f"{made.annotations}: {made.images} images, {made.segments} segments")


@dataclass
class Check:
    """Validates every file of a data set and reports all faults at once."""

    root: Positional[Path]
    workers: int = os.cpu_count() or 1

    def run(self) -> None:
        from spinet.data.prepare import check

        report = check(self.root, workers=self.workers)
        print(report)
        if not report.ok:
            raise SystemExit(1)


@dataclass
class Data:
    """Makes, prepares and checks data sets."""

    command: Annotated[
        Annotated[Synth, tyro.conf.subcommand("synth")]
        | Annotated[Prepare, tyro.conf.subcommand("prepare")]
        | Annotated[Check, tyro.conf.subcommand("check")],
        tyro.conf.arg(name=""),
    ]

    def run(self) -> None:
        self.command.run()


@dataclass
class Train:
    """Trains and evaluates; under torchrun on many processes. Every configuration field is an option."""

    data: Path
    """Folder in Cityscapes or COCO panoptic layout with the splits train and val."""
    out: Path
    preset: PresetName = "tiny"
    """Where the fields below start from."""
    system: System = "spinet"
    """What is trained: SPINet, or one of the systems that the paper compares with."""
    init: Path | None = None
    """Weights to start from: a model.safetensors. The fields of --model start from its network, not from the preset."""
    resume: bool = False
    """Go on from the last checkpoint in OUT, if there is one."""
    experiment: str = "train"
    """Name in the run record."""
    device: str = "auto"
    """cpu or cuda; auto is cuda where there is any."""
    model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
    objective: ObjectiveConfig = dataclasses.field(default_factory=ObjectiveConfig)
    input: InputConfig = dataclasses.field(default_factory=InputConfig)
    train: TrainConfig = dataclasses.field(default_factory=TrainConfig)
    inference: InferenceConfig = dataclasses.field(default_factory=InferenceConfig)
    baseline: tyro.conf.AvoidSubcommands[AnyBaseline | None] = None

    def run(self) -> None:
        from spinet.training.loop import train

        config = Config(self.model, self.objective, self.input, self.train, self.inference, self.baseline)
        record = train(
            config,
            data=self.data,
            out=self.out,
            init=self.init,
            resume=self.resume,
            experiment=self.experiment,
            device=self.device,
        )
        if int(os.environ.get("RANK", "0")) == 0:
            print(f"{self.out / 'model.safetensors'}\n{self.out / 'record.json'}")
            print_table([{name: value for name, value in record["metrics"].items() if isinstance(value, float)}])


@dataclass
class Evaluate:
    """PQ, AP and mIoU of weights on a data set, or PQ of prediction files against ground-truth files."""

    weights: Path | None = None
    data: Path | None = None
    split: str = "val"
    gt_json: Path | None = None
    """Ground truth in COCO panoptic format; its PNG folder lies beside it and is named like it, unless given."""
    pred_json: Path | None = None
    """Predictions in that format; they are matched by image id where file names agree, by file name otherwise."""
    gt_dir: Path | None = None
    pred_dir: Path | None = None
    workers: int = 1
    json: Path | None = None
    """Also write the result here."""
    device: str = "auto"

    def run(self) -> None:
        from spinet.evaluation import evaluate_files, headline

        if self.gt_json and self.pred_json:
            result = evaluate_files(
                self.gt_json, self.pred_json, gt_dir=self.gt_dir, pred_dir=self.pred_dir, workers=self.workers
            )
            columns = headline(result)
        elif self.weights and self.data:
            from spinet.data import open_dataset
            from spinet.evaluation.validate import validate
            from spinet.speed.optimize import optimize_for_inference
            from spinet.training.outcome import finish
            from spinet.weights import load_model

            model = optimize_for_inference(load_model(self.weights, device=pick_device(self.device)))
            dataset = open_dataset(self.data, self.split)
            result = validate(model, dataset)
            if self.split == "val" and (record := finish(self.weights, result, dataset)):
                print(f"{record}: finished")
            columns = result.pop("headline")
        else:
            raise ConfigError("give --weights and --data, or --gt-json and --pred-json")
        print_table(
            [
                {"class": entry["name"], **{key.upper(): 100 * entry[key] for key in ("pq", "sq", "rq")}}
                | {key: entry[key] for key in ("tp", "fp", "fn")}
                for entry in result["per_class"].values()
            ]
        )
        print_table([columns])
        if self.json:
            from spinet.files import write_json

            write_json(result, self.json)


@dataclass
class Predict:
    """Panoptic maps of photos, folders or videos: PNG and JSON in COCO format, and an overlay to look at."""

    inputs: Positional[tuple[Path, ...]]
    out: Path
    like: Path | None = None
    """Ground truth in COCO panoptic format: predictions get its image ids, pictures that it does not have none."""
    weights: Path | None = None
    """The model.safetensors of a training run; by default the weights that come with the package, of SynthCity."""
    device: str = "auto"

    def run(self) -> None:
        from spinet.inference.files import PredictionWriter, find_pictures, ids_of_truth, predict_all
        from spinet.speed.optimize import optimize_for_inference
        from spinet.weights import SHIPPED, load_model

        if not self.inputs:
            raise ConfigError("nothing to predict: name photos, folders or videos")
        if self.weights is None:
            print("no --weights: those that come with the package, which know synthetic streets only", file=sys.stderr)
        sources, left_out = find_pictures(list(self.inputs))
        ids = ids_of_truth(sources, self.like) if self.like else None
        if ids is not None:
            left_out += [source.path for source in sources if source.file_name not in ids]
            sources = [source for source in sources if source.file_name in ids]
        if left_out:
            print(f"left out: {', '.join(map(str, left_out))}", file=sys.stderr)
        model = load_model(self.weights or SHIPPED, device=pick_device(self.device))
        names = {category.id: category.name for category in model.categories.all}
        failures: list[str] = []
        with PredictionWriter(self.out, model.categories, ids=ids) as writer:
            for name, prediction in predict_all(optimize_for_inference(model), sources, writer, failures):
                print(f"{name}: {len(prediction.segments)} segments")
                print_table(
                    [
                        {"class": names[s["category_id"]], "score": s["score"], "box": s["bbox"], "area": s["area"]}
                        for s in prediction.segments
                        if s["isthing"]
                    ]
                )
        if writer.images:
            print(f"{self.out / 'panoptic.json'}\n{self.out / 'overlay'}")
        exit_with(failures)


@dataclass
class Runs:
    """Lists run records, and the settings in which they differ."""

    folder: Positional[Path] = Path("runs")

    def run(self) -> None:
        from spinet.records import RecordError, compare, find_records, tabulate

        broken: list[RecordError] = []
        records = find_records(self.folder, broken=broken)
        if not records and not broken:
            raise ConfigError(f"{self.folder}: no run record below this folder; spinet train writes record.json")
        print_table(tabulate(records.values()))
        differences = compare(list(records.values()))
        if differences:
            print_table([{"differs in": name, **dict(enumerate(map(str, v)))} for name, v in differences.items()])
        exit_with(map(str, broken))


@dataclass
class Sweep:
    """Trains and evaluates the rows of tables, each with every seed; called again it does what is not done yet."""

    data: Path
    """Folder in Cityscapes or COCO panoptic layout with the splits train and val."""
    out: Path = Path("runs/sweep")
    preset: PresetName = "tiny"
    groups: tuple[str, ...] = ()
    """Tables: table3, table4, table5, deformable, condinst, rates and then table1, or a choice of the ledger; by
    default what the paper reports for the preset."""
    rows: tuple[str, ...] = ()
    """Only these rows of them, such as dice and full."""
    seeds: tuple[int, ...] = (0,)
    workers: int | None = None
    """Runs at once on this machine; by default one for each core, or for each group of --processes GPUs."""
    processes: int | None = None
    """Of each run, by torchrun; by default as many of the GPUs as its batch can be shared by, under Slurm one."""
    slurm: bool = False
    """Submit the runs to Slurm instead of running them here."""
    dry_run: bool = False
    """Show what would be run."""
    timeout_hours: float | None = None
    """Limit for any one cell of a notebook."""
    overrides: tuple[str, ...] = ()
    """Settings of all runs, as section.field=value."""
    campaign: str | None = None
    """Settings of all runs that come before --overrides: synthcity or dsb2018, minutes of one core for each run."""

    def run(self) -> None:
        from spinet.experiments.settings import find_campaign, parse_overrides
        from spinet.experiments.sweep import sweep
        from spinet.experiments.tables import PAPER_GROUPS

        at_least(1, workers=self.workers, processes=self.processes)
        settings = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        shrunk = find_campaign(name) if (name := settings.pop("campaign")) else {}
        settings["groups"] = self.groups or PAPER_GROUPS[self.preset]
        settings["overrides"] = {**shrunk, **parse_overrides(self.overrides)}
        for folder in sweep(**settings):
            print(folder)


@dataclass
class Bench:
    """Times SPINet and the systems that the paper compares with, side by side, on pictures with so many things."""

    systems: tuple[System, ...] = ("spinet", *BASELINES)  # pyright: ignore[reportAssignmentType]
    """What is timed, untrained; nothing if only --weights are."""
    size: tuple[int, int] = (1024, 2048)
    """Height and width, pixels."""
    instances: tuple[int, ...] = (0, 20, 40, 80)
    """Things on the picture."""
    preset: PresetName = "cityscapes_r50"
    """Gives the sizes of the networks."""
    weights: tuple[Path, ...] = ()
    """Trained networks to time as well."""
    precision: tuple[Literal["fp32", "bf16"], ...] = ("fp32",)
    threads: int | None = None
    """Of PyTorch; by default as many as it takes."""
    device: str = "auto"
    repeats: int = 5
    """Rounds after the first, in each of which every system runs once."""
    optimize: tuple[bool, ...] = (True,)
    """True: networks by spinet.optimize_for_inference; False: as built; both: one beside the other."""
    compile: bool = False
    """The optimised ones by torch.compile, too."""
    json: Path | None = None
    """Write the record here."""

    def run(self) -> None:
        from spinet.speed.benchmark import benchmark
        from spinet.speed.summary import summary

        at_least(1, size=self.size, threads=self.threads, repeats=self.repeats)
        at_least(0, instances=self.instances)
        settings = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        out, device = settings.pop("json"), pick_device(settings.pop("device"))
        record = benchmark(**settings, device=device)
        print_table(summary(record))
        if out:
            from spinet.files import write_json

            write_json(record, out)


@dataclass
class Export:
    """Writes the network as an ONNX file, checked against onnxruntime."""

    out: Positional[Path]
    weights: Path | None = None
    """By default those that come with the package."""
    size: tuple[int, int] = (1024, 2048)
    """Height and width of the pictures, pixels."""

    def run(self) -> None:
        from spinet.speed.export import export
        from spinet.weights import SHIPPED, load_model

        at_least(1, size=self.size)
        deviations = export(load_model(self.weights or SHIPPED), self.out, size=self.size)
        print(f"{self.out}: onnxruntime deviates by {max(deviations.values()):.1e} of the largest value at most")


@dataclass
class Report:
    """Tables of the paper beside ours, and a page of the whole reproduction, from run records and nothing else."""

    runs: Positional[tuple[Path, ...]] = (Path("figures/runs"),)
    """Folders with run records."""
    out: Path = Path("figures")

    def run(self) -> None:
        from spinet.records import RecordError
        from spinet.report import report

        broken: list[RecordError] = []
        for path in report(self.runs, self.out, broken=broken):
            print(path)
        exit_with(map(str, broken))


@dataclass
class Reproduce:
    """The main job and the ablations: trains, evaluates on held-out scenes, writes records, tables and pictures."""

    preset: PresetName = "tiny"
    data: Path | None = None
    """Folder in Cityscapes or COCO panoptic layout; by default SynthCity, which is made in data/synthcity."""
    out: Path = Path("runs/reproduce")
    seeds: tuple[int, ...] = (0,)

    def run(self) -> None:
        from spinet.reproduce import reproduce

        for path in reproduce(preset=self.preset, data=self.data, out=self.out, seeds=self.seeds):
            print(path)


def command_type(preset: PresetName, system: System, init: str | None = None) -> Any:
    """All commands; those of `Train` start from a preset for a system, and from the network of `init`."""
    config = PRESETS[preset].with_system(system)
    if init is not None:
        from spinet.weights import read_config

        config = dataclasses.replace(config, model=read_config(init).model)
    train = Train(
        data=tyro.MISSING,
        out=tyro.MISSING,
        preset=preset,
        system=system,
        **{field.name: getattr(config, field.name) for field in dataclasses.fields(config)},
    )
    return (
        Annotated[Info, tyro.conf.subcommand("info")]
        | Annotated[Data, tyro.conf.subcommand("data")]
        | Annotated[Train, tyro.conf.subcommand("train", default=train)]
        | Annotated[Evaluate, tyro.conf.subcommand("evaluate")]
        | Annotated[Predict, tyro.conf.subcommand("predict")]
        | Annotated[Runs, tyro.conf.subcommand("runs")]
        | Annotated[Sweep, tyro.conf.subcommand("sweep")]
        | Annotated[Bench, tyro.conf.subcommand("bench")]
        | Annotated[Export, tyro.conf.subcommand("export")]
        | Annotated[Report, tyro.conf.subcommand("report")]
        | Annotated[Reproduce, tyro.conf.subcommand("reproduce")]
    )


def parse(arguments: list[str]) -> Any:
    """The command that the arguments ask for; raises `ConfigError` with the parser's complaint in one line."""
    chooser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    chooser.add_argument("--preset", default="tiny")
    chooser.add_argument("--system", default="spinet")
    chooser.add_argument("--init")
    chosen = chooser.parse_known_args(arguments)[0]
    # a name that does not exist is left for tyro to complain about
    preset = chosen.preset if chosen.preset in PRESETS else "tiny"
    system = chosen.system if chosen.system in BASELINES else "spinet"
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            return tyro.cli(command_type(preset, system, chosen.init), prog="spinet", args=arguments)
    except SystemExit as stop:
        if stop.code:
            lines = (line.strip("│╭╮╰╯─ ") for line in complaint.getvalue().splitlines())
            raise ConfigError("; ".join(line for line in lines if line)) from None
        raise


def pick_device(name: str) -> str:
    """The device itself, "cuda" where there is one for "auto". Raises `ConfigError` if there is no such device."""
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"--device {name}: cannot be used ({reason}); give cpu, cuda or auto") from None
    return name


def exit_with(failures: Iterable[str]) -> None:
    """Prints what went wrong beside what went well, an error a line, and ends with status 1; without any, goes on."""
    lines = [f"error: {' '.join(failure.split())}" for failure in failures]
    if lines:
        print(*lines, sep="\n", file=sys.stderr)
        raise SystemExit(1)


def at_least(least: int, **options: Any) -> None:
    """Raises `ConfigError` if an option, or one of its values, is a smaller number."""
    for name, value in options.items():
        for number in value if isinstance(value, tuple) else (value,):
            if number is not None and number < least:
                raise ConfigError(f"--{name.replace('_', '-')} {number}: at least {least}")


def print_table(rows: list[dict[Any, Any]]) -> None:
    """Rows with the same keys, aligned."""
    if not rows:
        return

    def text(value: Any) -> str:
        return "–" if value is None else f"{value:.2f}" if isinstance(value, float) else str(value)

    cells = [list(map(str, rows[0])), *([text(value) for value in row.values()] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for line in cells:
        print("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)))


def main() -> None:
    """Entry point of `spinet`: an error is one line on stderr, `--debug` shows where it came from."""
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    debug = len(arguments) < len(sys.argv) - 1
    logging.basicConfig(format="%(levelname)s: %(message)s")
    logging.captureWarnings(True)
    warnings.formatwarning = lambda message, *_, **__: str(message)
    raise_on_sigterm()
    os.environ.setdefault("OPENCV_LOG_LEVEL", "ERROR")  # our own errors name the file
    keep_freed_memory()
    try:
        parse(arguments).run()
    except BrokenPipeError:  # the reader, `head` say, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except Exception as error:
        if debug:
            raise
        text = " ".join(str(error).split())
        if not isinstance(error, ValueError | RuntimeError | OSError):  # none that we raise
            text = f"{type(error).__name__}: {text}; this should not happen, --debug shows where it did"
        print(f"error: {text}", file=sys.stderr)
        raise SystemExit(2 if isinstance(error, ConfigError) else 1) from None
    except KeyboardInterrupt as stop:
        print(f"interrupted: {stop}" if str(stop) else "interrupted", file=sys.stderr)
        raise SystemExit(128 + (signal.SIGTERM if isinstance(stop, Terminated) else signal.SIGINT)) from None


if __name__ == "__main__":
    main()
