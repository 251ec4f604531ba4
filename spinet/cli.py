"""The command line: reads arguments, calls the package, prints what it says."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import io
import json
import logging
import os
import sys
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
    Preset,
    TrainConfig,
)

Positional = tyro.conf.Positional


@dataclass
class Info:
    """Parameters and multiply-accumulates of a preset's network, beside the paper's."""

    preset: Preset = "cityscapes_r50"
    json: bool = False
    """Print JSON only."""

    def run(self) -> None:
        from spinet.accounting import compare_with_paper, describe

        description = describe(self.preset)
        if self.json:
            print(json.dumps(description, indent=1))
            return
        for key, value in description.items():
            print(f"{key:24} {value:>20,}" if isinstance(value, int) else f"{key:24} {value!s:>20}")
        if self.preset == "cityscapes_r50":
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
        from spinet.data.synthcity import generate

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
    preset: Preset = "tiny"
    """Where the fields below start from."""
    resume: bool = False
    """Go on from the last checkpoint in OUT, if there is one."""
    experiment: str = "train"
    """Name in the run record."""
    model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
    objective: ObjectiveConfig = dataclasses.field(default_factory=ObjectiveConfig)
    input: InputConfig = dataclasses.field(default_factory=InputConfig)
    train: TrainConfig = dataclasses.field(default_factory=TrainConfig)
    inference: InferenceConfig = dataclasses.field(default_factory=InferenceConfig)

    def run(self) -> None:
        from spinet.train import train

        config = Config(self.model, self.objective, self.input, self.train, self.inference)
        record = train(config, data=self.data, out=self.out, resume=self.resume, experiment=self.experiment)
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
    """Ground truth in COCO panoptic format; its PNG folder lies beside it and is named like it."""
    pred_json: Path | None = None
    workers: int = 1
    json: Path | None = None
    """Also write the result here."""
    device: str = "auto"

    def run(self) -> None:
        from spinet.evaluate import evaluate_files, headline

        if self.gt_json and self.pred_json:
            result = evaluate_files(self.gt_json, self.pred_json, workers=self.workers)
            columns = headline(result)
        elif self.weights and self.data:
            from spinet.data import open_dataset
            from spinet.validate import validate
            from spinet.weights import load_model

            model = load_model(self.weights, device=pick_device(self.device))
            result = validate(model, open_dataset(self.data, self.split))
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
            from spinet.runs import write_json

            write_json(result, self.json)


@dataclass
class Predict:
    """Panoptic maps of photos, folders or videos: PNG and JSON in COCO format, and an overlay to look at."""

    inputs: Positional[tuple[Path, ...]]
    out: Path
    weights: Path | None = None
    device: str = "auto"

    def run(self) -> None:
        from spinet.inference import predict
        from spinet.pictures import PredictionWriter, read_pictures
        from spinet.weights import load_model

        if self.weights is None:
            raise ConfigError("no --weights: give the model.safetensors of a training run (make reproduce makes one)")
        if not self.inputs:
            raise ConfigError("nothing to predict: name photos, folders or videos")
        model = load_model(self.weights, device=pick_device(self.device))
        writer = PredictionWriter(self.out, model.categories)
        names = {category.id: category.name for category in model.categories.all}
        try:
            for name, image in read_pictures(list(self.inputs)):
                prediction = predict(model, image)
                writer.write(name, image, prediction)
                print(f"{name}: {len(prediction.segments)} segments")
                print_table(
                    [
                        {"class": names[s["category_id"]], "score": s["score"], "box": s["bbox"], "area": s["area"]}
                        for s in prediction.segments
                        if s["isthing"]
                    ]
                )
        finally:
            writer.close()
        print(f"{self.out / 'panoptic.json'}\n{self.out / 'overlay'}")


@dataclass
class Runs:
    """Lists run records, and the settings in which they differ."""

    folder: Positional[Path] = Path("runs")

    def run(self) -> None:
        from spinet.runs import compare, find_records, tabulate

        records = find_records(self.folder)
        if not records:
            raise ConfigError(f"{self.folder}: no run record below this folder; spinet train writes record.json")
        print_table(tabulate(records.values()))
        differences = compare(list(records.values()))
        if differences:
            print_table([{"differs in": name, **dict(enumerate(map(str, v)))} for name, v in differences.items()])


@dataclass
class Reproduce:
    """The main job: makes SynthCity, trains, evaluates on held-out scenes, writes a record, a table and a picture."""

    data: Path = Path("data/synthcity")
    out: Path = Path("runs/reproduce")

    def run(self) -> None:
        from spinet.reproduce import reproduce

        for path in reproduce(data=self.data, out=self.out):
            print(path)


def command_type(preset: Preset) -> Any:
    """All commands; those of `Train` start from a preset."""
    config = PRESETS[preset]
    train = Train(
        data=tyro.MISSING,
        out=tyro.MISSING,
        preset=preset,
        **{field.name: getattr(config, field.name) for field in dataclasses.fields(config)},
    )
    return (
        Annotated[Info, tyro.conf.subcommand("info")]
        | Annotated[Data, tyro.conf.subcommand("data")]
        | Annotated[Train, tyro.conf.subcommand("train", default=train)]
        | Annotated[Evaluate, tyro.conf.subcommand("evaluate")]
        | Annotated[Predict, tyro.conf.subcommand("predict")]
        | Annotated[Runs, tyro.conf.subcommand("runs")]
        | Annotated[Reproduce, tyro.conf.subcommand("reproduce")]
    )


def parse(arguments: list[str]) -> Any:
    """The command that the arguments ask for; raises `ConfigError` with the parser's complaint in one line."""
    chooser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    chooser.add_argument("--preset", default="tiny")
    preset = chooser.parse_known_args(arguments)[0].preset
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            return tyro.cli(command_type(preset if preset in PRESETS else "tiny"), prog="spinet", args=arguments)
    except SystemExit as stop:
        if stop.code:
            lines = (line.strip("│╭╮╰╯─ ") for line in complaint.getvalue().splitlines())
            raise ConfigError("; ".join(line for line in lines if line)) from None
        raise


def pick_device(name: str) -> str:
    """The device itself, "cuda" where there is one for "auto"."""
    import torch

    return ("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name


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
    os.environ.setdefault("OPENCV_LOG_LEVEL", "ERROR")  # our own errors name the file
    try:
        parse(arguments).run()
    except BrokenPipeError:  # the reader, `head` say, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (ValueError, RuntimeError, OSError) as error:
        if debug:
            raise
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        raise SystemExit(2 if isinstance(error, ConfigError) else 1) from None
    except KeyboardInterrupt:
        print("interrupted; --resume goes on from the last checkpoint", file=sys.stderr)
        raise SystemExit(130) from None


if __name__ == "__main__":
    main()
