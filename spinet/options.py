"""The commands of `spinet` and their options."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NoReturn

from spinet.config import PRESETS, ConfigError
from spinet.config.baselines import BASELINES
from spinet.config.overrides import document, option_of, parse_value

SYSTEMS = ("spinet", *BASELINES)
CORES = os.cpu_count() or 1


def parse(arguments: Sequence[str]) -> dict[str, Any]:
    """The options by name, and under `command` whose they are. Fields of the configuration have a dot in their name.

    Raises:
        ConfigError: an option does not exist, lacks its value or does not take it.
    """
    dashed = [_dashed(argument) for argument in arguments]
    found, unknown = build_parser().parse_known_args(dashed)
    if unknown:
        known = [option_of(field.name) for fields in document().values() for field in fields]
        near = get_close_matches(unknown[0], known, n=1) if found.command == "train" else []
        raise ConfigError(f"{unknown[0]}: no such option" + (f"; did you mean {near[0]}?" if near else ""))
    options = vars(found)
    for name, value in options.items():
        if "." in name and value == [None]:  # a field with several values that has none
            options[name] = None
    return options


def _dashed(argument: str) -> str:
    """`--num_train=3` as `--num-train=3`."""
    name, equals, value = argument.partition("=")
    return f"{name.replace('_', '-')}{equals}{value}" if name.startswith("--") else argument


class Parser(argparse.ArgumentParser):
    """Raises `ConfigError` instead of printing its usage and leaving."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(message)


class Switch(argparse.Action):
    """`--section.field` and `--section.no-field`, or `--option` and `--no-option`, without a value."""

    def __init__(self, option_strings: Sequence[str], dest: str, **options: Any):
        name = option_strings[0].removeprefix("--")
        section, dot, field = name.rpartition(".")
        super().__init__([f"--{name}", f"--{section}{dot}no-{field}"], dest, nargs=0, **options)

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        setattr(namespace, self.dest, option_string == self.option_strings[0])


def at_least(least: int) -> Callable[[str], int]:
    """The type of an option that takes a whole number from `least` on."""

    def number(text: str) -> int:
        if (value := int(text)) < least:
            raise argparse.ArgumentTypeError(f"{text} is below {least}")
        return value

    return number


SIZE: dict[str, Any] = {"nargs": 2, "type": at_least(1), "metavar": ("HEIGHT", "WIDTH")}
SEEDS: dict[str, Any] = {"nargs": "*", "type": int, "default": [0], "metavar": "SEED"}
WORKERS: dict[str, Any] = {"type": at_least(1), "default": CORES, "metavar": "N", "help": "processes"}
DEVICE: dict[str, Any] = {"default": "auto", "help": "cpu or cuda; auto is cuda if there is a GPU"}
LAYOUT = "folder in Cityscapes or COCO panoptic layout with the splits train and val"


def build_parser() -> Parser:
    """All commands with all options."""
    parser = Parser(prog="spinet", description="SPINet: panoptic segmentation by single-shot path integration.")
    parser.add_argument(
        "--debug", action="store_true", default=argparse.SUPPRESS, help="show where in the program an error came from"
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for add_command in (_info, _data, _train, _evaluate, _predict, _runs, _sweep, _bench, _export, _report, _reproduce):
        add_command(commands)
    return parser


def _command(commands: Any, name: str, summary: str, **options: Any) -> Any:
    return commands.add_parser(name, help=summary, description=summary, allow_abbrev=False, **options)


def _options_of(command: Any) -> Callable[..., None]:
    """A function that adds an option to a command, with its default in the help text."""

    def add(*names: str, help: str, **options: Any) -> None:
        default = options.get("default")
        if options.get("required"):
            help += " (required)"
        elif default is not None and default is not False and default != []:
            help += f" (default: {' '.join(map(str, default)) if isinstance(default, list) else default})"
        command.add_argument(*names, help=help, **options)

    return add


def _info(commands: Any) -> None:
    add = _options_of(
        _command(commands, "info", "Parameters and multiply-accumulates of a preset's network, beside the paper's.")
    )
    add("--preset", choices=PRESETS, default="cityscapes_r50", help="sizes of the network")
    add("--system", choices=SYSTEMS, default="spinet", help="SPINet, or a system of the comparison: parameters only")
    add("--json", action=Switch, default=False, help="print JSON only")


def _data(commands: Any) -> None:
    data = commands.add_parser(
        "data", help="Makes, prepares and checks data sets.", description="Makes, prepares and checks data sets."
    ).add_subparsers(dest="command", metavar="COMMAND", required=True)
    add = _options_of(
        _command(data, "synth", "Makes SynthCity, the embedded synthetic city, in the layout of Cityscapes.")
    )
    add("out", type=Path, help="new folder")
    add("--num-train", type=int, default=600, metavar="N", help="training scenes")
    add("--num-val", type=int, default=100, metavar="N", help="validation scenes")
    add("--size", **SIZE, default=[256, 512], help="of the images, pixels")
    add("--seed", type=int, default=0, help="the same seed makes the same scenes")
    add("--workers", **WORKERS)
    add = _options_of(_command(data, "prepare", "Makes what a data set's training needs and its download lacks."))
    add("layout", choices=["cityscapes"], help="layout of the data set")
    add("root", type=Path, help="its folder")
    add = _options_of(_command(data, "check", "Validates every file of a data set and reports all faults at once."))
    add("root", type=Path, help="folder of the data set")
    add("--workers", **WORKERS)


def _train(commands: Any) -> None:
    training = _command(
        commands,
        "train",
        "Trains and evaluates; under torchrun on many processes. Every configuration field is an option.",
        usage="spinet train --data DATA --out OUT [OPTION ...]",
    )
    add = _options_of(training)
    add("--data", type=Path, required=True, help=LAYOUT)
    add("--out", type=Path, required=True, help="folder of the run: weights, record, log, checkpoints")
    add("--preset", choices=PRESETS, default="tiny", help="gives the defaults of the fields below")
    add("--system", choices=SYSTEMS, help="what is trained: SPINet (default), or a system of the paper's comparison")
    add("--init", type=Path, help="weights to start from, a model.safetensors; its network gives --model's defaults")
    add(
        "--base",
        nargs="*",
        metavar="FIELD=VALUE",
        help="for a row of a table: the settings that all its rows share, such as train.iterations=200; the fields "
        "below make the row",
    )
    add("--resume", action=Switch, default=False, help="go on from the last checkpoint in OUT, if there is one")
    add("--experiment", default="train", metavar="NAME", help="name in the run record")
    add("--device", **DEVICE)
    add_fields(training)


def _evaluate(commands: Any) -> None:
    add = _options_of(
        _command(commands, "evaluate", "PQ, AP and mIoU of weights on a data set, or PQ of prediction files.")
    )
    add("--weights", type=Path, help="the model.safetensors of a training run")
    add("--data", type=Path, help=LAYOUT)
    add("--split", default="val", help="split of the data")
    add(
        "--gt-json",
        type=Path,
        help="ground truth in COCO panoptic format; its PNG folder lies beside it and is named like it, unless given",
    )
    add(
        "--pred-json",
        type=Path,
        help="predictions in that format; they are matched by image id if file names agree, else by file name",
    )
    add("--gt-dir", type=Path, help="PNG folder of the ground truth")
    add("--pred-dir", type=Path, help="PNG folder of the predictions")
    add("--workers", **{**WORKERS, "default": 1})
    add("--json", type=Path, help="also write the result to this file")
    add("--device", **DEVICE)


def _predict(commands: Any) -> None:
    add = _options_of(
        _command(
            commands, "predict", "Panoptic maps of photos, folders or videos: PNG and JSON in COCO format, overlays."
        )
    )
    add("inputs", type=Path, nargs="+", help="photos, folders of photos, videos")
    add("--out", type=Path, required=True, help="new folder")
    add(
        "--like",
        type=Path,
        help="ground truth in COCO panoptic format: predictions get its image ids, images that it lacks are left out",
    )
    add("--weights", type=Path, help="the model.safetensors of a training run; by default those of the package")
    add("--device", **DEVICE)


def _runs(commands: Any) -> None:
    add = _options_of(_command(commands, "runs", "Lists run records, and the settings in which they differ."))
    add("folder", type=Path, nargs="?", default=Path("runs"), help="all records in this folder and below are listed")


def _sweep(commands: Any) -> None:
    add = _options_of(
        _command(
            commands,
            "sweep",
            "Trains and evaluates the rows of tables with every seed; a second call does what is left.",
        )
    )
    add("--data", type=Path, required=True, help=LAYOUT)
    add("--out", type=Path, default=Path("runs/sweep"), help="gets a folder for each run")
    add("--preset", choices=PRESETS, default="tiny", help="settings that the rows change")
    add(
        "--groups",
        nargs="*",
        default=[],
        help="tables: table3, table4, table5, deformable, condinst, rates and then table1, or one of the open choices "
        "of docs/unstated.md; by default what the paper reports for the preset",
    )
    add("--rows", nargs="*", default=[], help="only these rows of the tables, such as dice and full")
    add("--seeds", **SEEDS, help="every row is run with each seed")
    add(
        "--workers",
        type=at_least(1),
        metavar="N",
        help="runs at once on this machine; by default one for each core, or for each group of --processes GPUs",
    )
    add(
        "--processes",
        type=at_least(1),
        metavar="N",
        help="of each run, by torchrun; by default as many of the GPUs as its batch can be shared by, under Slurm one",
    )
    add("--slurm", action=Switch, default=False, help="submit the runs to Slurm instead of running them here")
    add("--dry-run", action=Switch, default=False, help="show what would be run")
    add("--timeout-hours", type=float, metavar="HOURS", help="limit for each cell of a notebook")
    add("--overrides", nargs="*", default=[], metavar="FIELD=VALUE", help="settings of all runs")
    add(
        "--campaign",
        help="settings of all runs, set before --overrides: synthcity or dsb2018, minutes of one core for each run",
    )


def _bench(commands: Any) -> None:
    add = _options_of(
        _command(commands, "bench", "Times SPINet and the systems that the paper compares with, side by side.")
    )
    add("--systems", nargs="*", choices=SYSTEMS, default=list(SYSTEMS), help="untrained; none: only --weights")
    add("--size", **SIZE, default=[1024, 2048], help="of the image, pixels")
    add("--instances", nargs="*", type=at_least(0), default=[0, 20, 40, 80], metavar="N", help="things in the image")
    add("--preset", choices=PRESETS, default="cityscapes_r50", help="sizes of the networks")
    add("--weights", nargs="*", type=Path, default=[], help="trained networks to time as well")
    add("--precision", nargs="*", choices=["fp32", "bf16"], default=["fp32"], help="arithmetic of the networks")
    add("--threads", type=at_least(1), metavar="N", help="of PyTorch; by default as many as it takes")
    add("--device", **DEVICE)
    add("--repeats", type=at_least(1), default=5, metavar="N", help="timed rounds; each runs every system once")
    add(
        "--optimize",
        nargs="*",
        type=parse_value,
        choices=[True, False],
        default=[True],
        help="True: networks by spinet.optimize_for_inference; False: as built; both: one beside the other",
    )
    add("--compile", action=Switch, default=False, help="the optimised networks also by torch.compile")
    add("--json", type=Path, help="write the record to this file")


def _export(commands: Any) -> None:
    add = _options_of(_command(commands, "export", "Writes the network as an ONNX file, checked against onnxruntime."))
    add("out", type=Path, help="new file")
    add("--weights", type=Path, help="by default those that come with the package")
    add("--size", **SIZE, default=[1024, 2048], help="of the images, pixels")


def _report(commands: Any) -> None:
    add = _options_of(
        _command(
            commands,
            "report",
            "Tables of the paper beside ours, and a page of the whole reproduction, from run records.",
        )
    )
    add("runs", type=Path, nargs="*", default=[Path("figures/runs")], help="folders with run records")
    add("--out", type=Path, default=Path("figures"), help="folder of the report")


def _reproduce(commands: Any) -> None:
    add = _options_of(
        _command(
            commands,
            "reproduce",
            "The main job and the ablations: trains, evaluates, writes records, tables and images.",
        )
    )
    add("--preset", choices=PRESETS, default="tiny", help="tiny makes its own data")
    add("--data", type=Path, help=f"{LAYOUT}; by default SynthCity, which is made in data/synthcity")
    add("--out", type=Path, default=Path("runs/reproduce"), help="folder of the results")
    add("--seeds", **SEEDS, help="of the ablations")


def add_fields(parser: argparse.ArgumentParser) -> None:
    """Every field of the configuration as an option, named `--section.field`. What is not given is left out."""
    for section, fields in document().items():
        group = parser.add_argument_group(f"{section} options")
        for field in fields:
            kind: dict[str, Any] = {"action": Switch}
            if not field.flag:
                kind = {"type": parse_value, "metavar": field.metavar, "nargs": "+" if field.several else None}
            group.add_argument(
                option_of(field.name),
                dest=field.name,
                default=argparse.SUPPRESS,
                help=f"{field.comment} (default: {_by_preset(field.defaults)})".strip().replace("%", "%%"),
                **kind,
            )


def _by_preset(defaults: dict[str, Any]) -> str:
    """One default if all agree, else those of each preset, or of each system."""
    texts = {
        name: " ".join(map(str, value)) if isinstance(value, list) else str(value) for name, value in defaults.items()
    }
    values = set(texts.values())
    if len(values) == 1 and texts.keys() >= PRESETS.keys():
        return values.pop()
    return ", ".join(f"{name} {text}" for name, text in texts.items())
