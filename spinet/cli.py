"""The command line: parses arguments, calls the package, prints the results."""

from __future__ import annotations

import json as jsonlib
import logging
import os
import signal
import sys
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from spinet.config import PRESETS, Config, ConfigError, PresetName
from spinet.config.overrides import override, parse_overrides
from spinet.options import parse
from spinet.speed.memory import keep_freed_memory
from spinet.training.interruption import Terminated, raise_on_sigterm


def info(*, preset: PresetName, system: str, json: bool) -> None:
    from spinet.speed.accounting import compare_with_paper, describe, describe_baseline

    ours = system == "spinet"
    description = describe(preset) if ours else describe_baseline(system, preset)
    if json:
        print(jsonlib.dumps(description, indent=1))
        return
    for key, value in description.items():
        print(f"{key:24} {value:>20,}" if isinstance(value, int) else f"{key:24} {value!s:>20}")
    if preset == "cityscapes_r50" and ours:
        print_table(compare_with_paper(description))


def synth(*, out: Path, num_train: int, num_val: int, size: list[int], seed: int, workers: int) -> None:
    from spinet.synthcity import generate

    generate(out, num_train=num_train, num_val=num_val, size=(size[0], size[1]), seed=seed, workers=workers)


def prepare(*, layout: str, root: Path) -> None:
    from spinet.data.prepare import prepare_cityscapes

    for made in prepare_cityscapes(root):
        print(f"{made.annotations}: {made.images} images, {made.segments} segments")


def check(*, root: Path, workers: int) -> None:
    from spinet.data.prepare import check

    report = check(root, workers=workers)
    print(report)
    if not report.ok:
        raise SystemExit(1)


def train(
    *,
    data: Path,
    out: Path,
    preset: PresetName,
    system: str | None,
    init: Path | None,
    base: list[str] | None,
    resume: bool,
    experiment: str,
    device: str,
    **fields: Any,
) -> None:
    from spinet.training.loop import train

    config, start = configure(preset, system=system, init=init, base=base, fields=fields)
    record = train(
        config, data=data, out=out, init=init, resume=resume, experiment=experiment, device=device, base=start
    )
    if int(os.environ.get("RANK", "0")) == 0:
        print(f"{out / 'model.safetensors'}\n{out / 'record.json'}")
        print_table([{name: value for name, value in record["metrics"].items() if isinstance(value, float)}])


def configure(
    preset: PresetName, *, system: str | None, init: Path | None, base: list[str] | None, fields: dict[str, Any]
) -> tuple[Config, Config | None]:
    """The configuration to train and, for a row of a table, the settings shared by all rows."""
    chosen = PRESETS[preset]
    if init is not None:
        from spinet.weights import start_from

        chosen = start_from(chosen, init)
    start = override(chosen, parse_overrides(base or ()))
    config = override(override(start, {"system": system} if system else {}), fields).config
    return config, None if base is None else override(start, {"train.seed": config.train.seed}).config


def evaluate(
    *,
    weights: Path | None,
    data: Path | None,
    split: str,
    gt_json: Path | None,
    pred_json: Path | None,
    gt_dir: Path | None,
    pred_dir: Path | None,
    workers: int,
    json: Path | None,
    device: str,
) -> None:
    from spinet.evaluation import evaluate_files, summarize

    if gt_json and pred_json:
        result = evaluate_files(gt_json, pred_json, gt_dir=gt_dir, pred_dir=pred_dir, workers=workers)
        columns = summarize(result)
    elif weights and data:
        from spinet.data import open_dataset
        from spinet.evaluation.validate import validate
        from spinet.machine import find_device
        from spinet.speed.optimize import optimize_for_inference
        from spinet.training.outcome import finish
        from spinet.weights import load_model

        device = find_device(device)
        model = load_model(weights, device=device)
        dataset = open_dataset(data, split)
        result = validate(optimize_for_inference(model), dataset)
        if split == "val" and (record := finish(weights, result, dataset, device=device)):
            print(f"{record}: finished")
        columns = result.pop("summary")
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
    if json:
        from spinet.files import write_json

        write_json(result, json)


def predict(*, inputs: list[Path], out: Path, like: Path | None, weights: Path | None, device: str) -> None:
    from spinet.inference.files import PredictionWriter, find_pictures, ids_of_truth, predict_all
    from spinet.machine import find_device
    from spinet.speed.optimize import optimize_for_inference
    from spinet.weights import SHIPPED, load_model

    if weights is None:
        print("no --weights: using those that come with the package, trained on synthetic streets", file=sys.stderr)
    sources, left_out = find_pictures(inputs)
    ids = ids_of_truth(sources, like) if like else None
    if ids is not None:
        left_out += [source.path for source in sources if source.file_name not in ids]
        sources = [source for source in sources if source.file_name in ids]
    if left_out:
        print(f"left out: {', '.join(map(str, left_out))}", file=sys.stderr)
    model = load_model(weights or SHIPPED, device=find_device(device))
    names = {category.id: category.name for category in model.categories.all}
    failures: list[str] = []
    with PredictionWriter(out, model.categories, ids=ids) as writer:
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
        print(f"{out / 'panoptic.json'}\n{out / 'overlay'}")
    exit_with(failures)


def runs(*, folder: Path) -> None:
    from spinet.records import RecordError, compare, find_records, tabulate

    broken: list[RecordError] = []
    records = find_records(folder, broken=broken)
    if not records and not broken:
        raise ConfigError(f"{folder}: no run record in this folder; spinet train writes record.json")
    print_table(tabulate(records.values()))
    differences = compare(list(records.values()))
    if differences:
        print_table([{"differs in": name, **dict(enumerate(map(str, v)))} for name, v in differences.items()])
    exit_with(map(str, broken))


def sweep(*, preset: PresetName, groups: list[str], campaign: str | None, overrides: list[str], **options: Any) -> None:
    from spinet.experiments.sweep import sweep
    from spinet.experiments.tables import PAPER_GROUPS, find_campaign

    settings = {**(find_campaign(campaign) if campaign else {}), **parse_overrides(overrides)}
    for folder in sweep(preset=preset, groups=groups or PAPER_GROUPS[preset], overrides=settings, **options):
        print(folder)


def bench(*, json: Path | None, device: str, **options: Any) -> None:
    from spinet.machine import find_device
    from spinet.speed.benchmark import benchmark
    from spinet.speed.summary import summary

    record = benchmark(**options, device=find_device(device))
    print_table(summary(record))
    if json:
        from spinet.files import write_json

        write_json(record, json)


def export(*, out: Path, weights: Path | None, size: list[int]) -> None:
    from spinet.speed.export import export
    from spinet.weights import SHIPPED, load_model

    deviations = export(load_model(weights or SHIPPED), out, size=(size[0], size[1]))
    print(f"{out}: maximum deviation of onnxruntime: {max(deviations.values()):.1e} of the largest value")


def report(*, runs: list[Path], out: Path) -> None:
    from spinet.records import RecordError
    from spinet.report import report

    broken: list[RecordError] = []
    for path in report(runs, out, broken=broken):
        print(path)
    exit_with(map(str, broken))


def reproduce(**options: Any) -> None:
    from spinet.reproduce import reproduce

    for path in reproduce(**options):
        print(path)


def exit_with(failures: Iterable[str]) -> None:
    """Prints one line per failure and exits with status 1. Without failures, it returns."""
    lines = [f"error: {' '.join(failure.split())}" for failure in failures]
    if lines:
        print(*lines, sep="\n", file=sys.stderr)
        raise SystemExit(1)


def print_table(rows: list[dict[Any, Any]]) -> None:
    """Prints rows with the same keys as an aligned table."""
    if not rows:
        return

    def text(value: Any) -> str:
        return "–" if value is None else f"{value:.2f}" if isinstance(value, float) else str(value)

    cells = [list(map(str, rows[0])), *([text(value) for value in row.values()] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for line in cells:
        print("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)))


COMMANDS = {
    function.__name__: function
    for function in (
        info,
        synth,
        prepare,
        check,
        train,
        evaluate,
        predict,
        runs,
        sweep,
        bench,
        export,
        report,
        reproduce,
    )
}


def main() -> None:
    """Entry point of `spinet`: an error is one line on stderr; `--debug` shows its traceback."""
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    debug = len(arguments) < len(sys.argv) - 1
    logging.basicConfig(format="%(levelname)s: %(message)s")
    logging.captureWarnings(True)
    warnings.formatwarning = lambda message, *_, **__: str(message)
    raise_on_sigterm()
    os.environ.setdefault("OPENCV_LOG_LEVEL", "ERROR")  # our errors name the file
    keep_freed_memory()
    try:
        options = parse(arguments)
        COMMANDS[options.pop("command")](**options)
    except BrokenPipeError:  # the reader, such as `head`, has closed the pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except Exception as error:
        if debug:
            raise
        text = " ".join(str(error).split())
        if not isinstance(error, ValueError | RuntimeError | OSError):  # not raised by our code
            text = f"{type(error).__name__}: {text}; this is a bug; --debug shows the traceback"
        print(f"error: {text}", file=sys.stderr)
        raise SystemExit(2 if isinstance(error, ConfigError) else 1) from None
    except KeyboardInterrupt as stop:
        print(f"interrupted: {stop}" if str(stop) else "interrupted", file=sys.stderr)
        raise SystemExit(128 + (signal.SIGTERM if isinstance(stop, Terminated) else signal.SIGINT)) from None


if __name__ == "__main__":
    main()
