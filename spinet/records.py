"""JSON records of runs: settings, data, machine, source and results. All tables are made from records."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from spinet.files import SEAL, is_intact, read_json, visible, write_json

PACKAGE = Path(__file__).resolve().parent
PACKAGES = ("spinet", "torch", "torchvision", "timm", "accelerate", "numpy", "opencv-python-headless", "pycocotools")
DESCRIPTIONS = ("data", "device", "versions", "config", "metrics")  # dictionaries
REMEDY = "delete it and repeat the run"
KEYS = ("experiment", "seed", "status", "created", "commit", "dirty", "iterations", "hours", *DESCRIPTIONS)


class RecordError(ValueError):
    """A file is not a valid run record; the message names the file, the fault and a remedy."""


def new_record(
    *,
    experiment: str,
    seed: int,
    config: Mapping[str, Any],
    data: Mapping[str, Any],
    iterations: int,
    hours: float,
    metrics: Mapping[str, Any],
    device: str | None = None,
    processes: int = 1,
    status: str = "finished",
) -> dict[str, Any]:
    """A record with the current time, machine and source.

    `data` comes from `describe_data`. `device` is the accelerator's name; the default is the processor's. `commit` is
    the commit of the source, None outside a git checkout; `dirty` tells whether the package's files differ from it.
    """
    commit, dirty = source_state()
    return {
        "experiment": experiment,
        "seed": seed,
        "status": status,
        "created": datetime.now(UTC).isoformat(timespec="microseconds"),
        "commit": commit,
        "dirty": dirty,
        "data": dict(data),
        "device": {"name": device or _processor(), "cores": _cores(), "processes": processes},
        "versions": versions(),
        "config": dict(config),
        "iterations": iterations,
        "hours": hours,
        "metrics": dict(metrics),
    }


def write_record(record: Mapping[str, Any], path: str | Path) -> None:
    """Writes a record as strict JSON (nan and infinity as null, keys as strings), atomically.

    Its last key is its sha256. Raises `RecordError` if a key is missing, `FileError` if a value cannot be written as
    JSON, and `OSError` naming `path` if the file cannot be written; an older record is then unchanged.
    """
    _check(record, path)
    write_json(record, path, seal=True)


def read_record(path: str | Path) -> dict[str, Any]:
    """The record in a file. Raises `RecordError` if it is missing, not a record, or changed since it was written."""
    return _checked(read_json(path, error=RecordError, remedy=REMEDY), path)


def find_records(folder: str | Path, *, broken: list[RecordError] | None = None) -> dict[Path, dict[str, Any]]:
    """All records in a folder and its subfolders, oldest first.

    JSON files without the key `experiment` and hidden files are ignored. A broken record raises `RecordError`. If a
    list `broken` is given, the error is added to it instead, and the other records are read.
    """
    root, records = Path(folder), {}
    for path in sorted(path for path in root.rglob("*.json") if visible(path, root)):
        try:
            content = read_json(path, error=RecordError, remedy=REMEDY)
            if isinstance(content, dict) and "experiment" in content:
                records[path] = _checked(content, path)
        except RecordError as error:
            if broken is None:
                raise
            broken.append(error)
    return dict(sorted(records.items(), key=lambda item: str(item[1]["created"])))


def tabulate(records: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One row per record, oldest first: the run, then each metric that is a single number.

    All rows have the same columns; a cell is None if the record lacks the metric or it is not a number.
    """
    ordered = sorted(records, key=lambda record: str(record["created"]))
    metrics = dict.fromkeys(name for record in ordered for name, value in record["metrics"].items() if _is_cell(value))
    head = ("experiment", "seed", "status", "iterations", "hours", "created")
    return [
        {key: record[key] for key in head}
        | {name: value if _is_cell(value := record["metrics"].get(name)) else None for name in metrics}
        for record in ordered
    ]


def compare(records: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Settings that differ between the records, by dotted name, with the value in each; None if it is absent."""
    flat = [flatten(record["config"]) for record in records]
    names = dict.fromkeys(name for config in flat for name in config)
    columns = {name: [config.get(name) for config in flat] for name in names}
    return {name: values for name, values in columns.items() if any(value != values[0] for value in values)}


def describe_data(root: str | Path, *, splits: Mapping[str, int], paths: Iterable[str | Path]) -> dict[str, Any]:
    """The entry `data` of a record: the folder's name, the images per split, and the `fingerprint` of `paths`."""
    return {"name": Path(root).resolve().name, "splits": dict(splits), "fingerprint": fingerprint(paths)}


def fingerprint(paths: Iterable[str | Path]) -> str:
    """sha256 of a data set, independent of its location and of the order of `paths`.

    `paths` are files, and folders with all their files. Every file counts with its name. Annotations (`.json`) also
    count with their content, other files with their size in bytes, because there are too many to read.
    """
    lines = []
    for path in map(Path, paths):
        for file in (f for f in path.rglob("*") if f.is_file()) if path.is_dir() else (path,):
            name = file.relative_to(path.parent).as_posix()
            if file.suffix == ".json":
                with file.open("rb") as handle:
                    lines.append(f"{name} {hashlib.file_digest(handle, 'sha256').hexdigest()}")
            else:
                lines.append(f"{name} {file.stat().st_size}")
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()


def versions() -> dict[str, str | None]:
    """Versions of Python and of the libraries that results depend on; None for one that is not installed."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = None
    return found


def source_state() -> tuple[str | None, bool | None]:
    """The commit of the package's source, and whether its files differ from it; None, None outside a git checkout."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(PACKAGE), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", "__init__.py")  # fails if it is installed in another checkout
        return git("rev-parse", "HEAD"), bool(git("status", "--porcelain", "--", "."))
    except (OSError, subprocess.SubprocessError):
        return None, None


def _check(record: Any, path: str | Path) -> None:
    if not isinstance(record, Mapping):
        raise RecordError(f"{path}: contains {type(record).__name__}, not a run record")
    if missing := [key for key in KEYS if key not in record]:
        raise RecordError(f"{path}: not a run record, it lacks {', '.join(missing)}: make records with `new_record`")
    if not is_intact(record):
        raise RecordError(f"{path}: damaged, or edited since it was written (its sha256 differs); repeat the run")
    for key in DESCRIPTIONS:
        if not isinstance(record[key], Mapping):
            raise RecordError(f"{path}: `{key}` is {type(record[key]).__name__}, not a dictionary")


def _checked(record: Any, path: str | Path) -> dict[str, Any]:
    """The record without its checksum. Raises `RecordError` like `_check`."""
    _check(record, path)
    return {key: value for key, value in record.items() if key != SEAL}


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested dictionaries as one dictionary with dotted names."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) and value else {f"{prefix}{key}": value}
    return flat


def _is_cell(value: Any) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())
