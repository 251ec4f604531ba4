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
    """Parses the arguments: options by name, and the `command`. Names of configuration fields have a dot.

    Raises:
        ConfigError: an option does not exist, or its value is missing or invalid.
    """
    dashed = [_dashed(argument) for argument in arguments]
    found, unknown = build_parser().parse_known_args(dashed)
    if unknown:
        known = [option_of(field.name) for fields in document().values() for field in fields]
        near = get_close_matches(unknown[0], known, n=1) if found.command == "train" else []
        raise ConfigError(f"{unknown[0]}: no such option" + (f"; did you mean {near[0]}?" if near else ""))
    options = vars(found)
    for name, value in options.items():
        if "." in name and value == [None]:  # None for a field with several values
            options[name] = None
    return options


def _dashed(argument: str) -> str:
    """Converts `--num_train=3` to `--num-train=3`."""
    name, equals, value = argument.partition("=")
    return f"{name.replace('_', '-')}{equals}{value}" if name.startswith("--") else argument


class Parser(argparse.ArgumentParser):
    """A parser that raises `ConfigError` instead of exiting with a usage message."""

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
    """The type of an option whose value is an integer of at least `least`."""

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
        "--debug", action="store_true", default=argparse.SUPPRESS, help="show the traceback of an error"
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
        _command(commands, "info", "Prints parameters and MACs of a preset's network, beside the paper's.")
    )
    add("--preset", choices=PRESETS, default="cityscapes_r50", help="sizes of the network")
    add("--system", choices=SYSTEMS, default="spinet", help="SPINet, or another system (parameters only)")
    add("--json", action=Switch, default=False, help="print JSON only")


def _data(commands: Any) -> None:
    data = commands.add_parser(
        "data", help="Makes, prepares and checks data sets.", description="Makes, prepares and checks data sets."
    ).add_subparsers(dest="command", metavar="COMMAND", required=True)
    add = _options_of(_command(data, "synth", "Makes the synthetic data set SynthCity, in the layout of Cityscapes."))
    add("out", type=Path, help="new folder")
    add("--num-train", type=int, default=600, metavar="N", help="training scenes")
    add("--num-val", type=int, default=100, metavar="N", help="validation scenes")
    add("--size", **SIZE, default=[256, 512], help="size of the images, pixels")
    add("--seed", type=int, default=0, help="the same seed makes the same scenes")
    add("--workers", **WORKERS)
    add = _options_of(_command(data, "prepare", "Makes training files that are not in the download of a data set."))
    add("layout", choices=["cityscapes"], help="layout of the data set")
    add("root", type=Path, help="folder of the data set")
    add = _options_of(_command(data, "check", "Checks every file of a data set and reports all faults."))
    add("root", type=Path, help="folder of the data set")
    add("--workers", **WORKERS)


def _train(commands: Any) -> None:
    training = _command(
        commands,
        "train",
        "Trains and evaluates, under torchrun on several processes. Every configuration field is an option.",
        usage="spinet train --data DATA --out OUT [OPTION ...]",
    )
    add = _options_of(training)
    add("--data", type=Path, required=True, help=LAYOUT)
    add("--out", type=Path, required=True, help="folder of the run: weights, record, log, checkpoints")
    add("--preset", choices=PRESETS, default="tiny", help="source of the defaults of the fields below")
    add("--system", choices=SYSTEMS, help="system to train: SPINet (default), or one that the paper compares with")
    add("--init", type=Path, help="initial weights, a model.safetensors; its network gives the defaults of --model")
    add(
        "--base",
        nargs="*",
        metavar="FIELD=VALUE",
        help="settings shared by all rows of a table, such as train.iterations=200; the fields below are those of the "
        "row",
    )
    add("--resume", action=Switch, default=False, help="continue from the last checkpoint in OUT, if there is one")
    add("--experiment", default="train", metavar="NAME", help="name in the run record")
    add("--device", **DEVICE)
    add_fields(training)


def _evaluate(commands: Any) -> None:
    add = _options_of(
        _command(commands, "evaluate", "Computes PQ, AP and mIoU of weights on a data set, or PQ of prediction files.")
    )
    add("--weights", type=Path, help="the model.safetensors of a training run")
    add("--data", type=Path, help=LAYOUT)
    add("--split", default="val", help="split of the data")
    add(
        "--gt-json",
        type=Path,
        help="ground truth in COCO panoptic format; its PNG folder is beside it, with the same name, unless given",
    )
    add(
        "--pred-json",
        type=Path,
        help="predictions in this format; matched by image id if file names agree, else by file name",
    )
    add("--gt-dir", type=Path, help="PNG folder of the ground truth")
    add("--pred-dir", type=Path, help="PNG folder of the predictions")
    add("--workers", **{**WORKERS, "default": 1})
    add("--json", type=Path, help="also write the result to this file")
    add("--device", **DEVICE)


def _predict(commands: Any) -> None:
    add = _options_of(
        _command(commands, "predict", "Predicts photos, folders or videos: PNG and JSON in COCO format, overlays.")
    )
    add("inputs", type=Path, nargs="+", help="photos, folders of photos, videos")
    add("--out", type=Path, required=True, help="new folder")
    add(
        "--like",
        type=Path,
        help="ground truth in COCO panoptic format: predict only its images, with its image ids",
    )
    add("--weights", type=Path, help="the model.safetensors of a training run; default: the weights in the package")
    add("--device", **DEVICE)


def _runs(commands: Any) -> None:
    add = _options_of(_command(commands, "runs", "Lists run records and their differing settings."))
    add("folder", type=Path, nargs="?", default=Path("runs"), help="folder with records, also in subfolders")


def _sweep(commands: Any) -> None:
    add = _options_of(
        _command(
            commands,
            "sweep",
            "Trains and evaluates the rows of tables with every seed. A second call continues.",
        )
    )
    add("--data", type=Path, required=True, help=LAYOUT)
    add("--out", type=Path, default=Path("runs/sweep"), help="folder with one subfolder for each run")
    add("--preset", choices=PRESETS, default="tiny", help="settings to start from")
    add(
        "--groups",
        nargs="*",
        default=[],
        help="tables: table3, table4, table5, deformable, condinst, rates and then table1, or one of the choices in "
        "docs/unstated.md; default: the tables in the paper for this preset",
    )
    add("--rows", nargs="*", default=[], help="run only these rows, such as dice and full")
    add("--init", type=Path, help="initial weights of all runs, a model.safetensors; its network replaces the preset's")
    add("--seeds", **SEEDS, help="seeds for every row")
    add(
        "--workers",
        type=at_least(1),
        metavar="N",
        help="parallel runs on this machine; default: one for each core, or for each group of --processes GPUs",
    )
    add(
        "--processes",
        type=at_least(1),
        metavar="N",
        help="processes of each run, by torchrun; default: one per GPU, if the batch can be divided; 1 under Slurm",
    )
    add("--slurm", action=Switch, default=False, help="submit the runs to Slurm instead of running them here")
    add("--dry-run", action=Switch, default=False, help="show the runs without starting them")
    add("--timeout-hours", type=float, metavar="HOURS", help="time limit for each notebook cell")
    add("--overrides", nargs="*", default=[], metavar="FIELD=VALUE", help="settings of all runs")
    add(
        "--campaign",
        help="predefined settings of all runs, before --overrides, for short runs on one core: synthcity, dsb2018 or "
        "coco_street",
    )


def _bench(commands: Any) -> None:
    add = _options_of(
        _command(commands, "bench", "Measures times of SPINet and of the systems that the paper compares with.")
    )
    add("--systems", nargs="*", choices=SYSTEMS, default=list(SYSTEMS), help="untrained systems; none: only --weights")
    add("--size", **SIZE, default=[1024, 2048], help="size of the image, pixels")
    add("--instances", nargs="*", type=at_least(0), default=[0, 20, 40, 80], metavar="N", help="things per image")
    add("--preset", choices=PRESETS, default="cityscapes_r50", help="sizes of the networks")
    add("--weights", nargs="*", type=Path, default=[], help="trained networks to measure as well")
    add("--precision", nargs="*", choices=["fp32", "bf16"], default=["fp32"], help="number formats of the networks")
    add("--threads", type=at_least(1), metavar="N", help="threads of PyTorch; default: PyTorch's default")
    add("--device", **DEVICE)
    add("--repeats", type=at_least(1), default=5, metavar="N", help="measured rounds; each runs every system once")
    add(
        "--optimize",
        nargs="*",
        type=parse_value,
        choices=[True, False],
        default=[True],
        help="True: after spinet.optimize_for_inference; False: as built; both: compare them",
    )
    add("--compile", action=Switch, default=False, help="also use torch.compile for the optimised networks")
    add("--json", type=Path, help="write the record to this file")


def _export(commands: Any) -> None:
    add = _options_of(_command(commands, "export", "Writes the network as an ONNX file, checked against onnxruntime."))
    add("out", type=Path, help="new file")
    add("--weights", type=Path, help="default: the weights in the package")
    add("--size", **SIZE, default=[1024, 2048], help="size of the images, pixels")


def _report(commands: Any) -> None:
    add = _options_of(
        _command(
            commands,
            "report",
            "Writes the tables of the paper beside ours, and a page of the reproduction, from run records.",
        )
    )
    add("runs", type=Path, nargs="*", default=[Path("figures/runs")], help="folders with run records")
    add("--out", type=Path, default=Path("figures"), help="folder of the report")


def _reproduce(commands: Any) -> None:
    add = _options_of(
        _command(
            commands,
            "reproduce",
            "Runs the main job and the ablations: trains, evaluates, writes records, tables and images.",
        )
    )
    add("--preset", choices=PRESETS, default="tiny", help="tiny makes its own data")
    add("--data", type=Path, help=f"{LAYOUT}; default: SynthCity, made in data/synthcity")
    add("--out", type=Path, default=Path("runs/reproduce"), help="folder of the results")
    add("--seeds", **SEEDS, help="seeds of the ablations")


def add_fields(parser: argparse.ArgumentParser) -> None:
    """Every field of the configuration as an option, named `--section.field`. Omitted options have no value."""
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
    """The default, if all agree; else that of each preset, or of each system."""
    texts = {
        name: " ".join(map(str, value)) if isinstance(value, list) else str(value) for name, value in defaults.items()
    }
    values = set(texts.values())
    if len(values) == 1 and texts.keys() >= PRESETS.keys():
        return values.pop()
    return ", ".join(f"{name} {text}" for name, text in texts.items())
