"""One JSON record a run: what was run, on what, from which source, and what came out. Tables are made from these."""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
import subprocess
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import IO, Any

PACKAGE = Path(__file__).resolve().parent
PACKAGES = ("spinet", "torch", "torchvision", "timm", "accelerate", "numpy", "opencv-python-headless", "pycocotools")
DESCRIPTIONS = ("data", "device", "versions", "config", "metrics")  # dictionaries
SEAL = "sha256"  # the last key of a file that says whether the others are as they were written
KEYS = ("experiment", "seed", "status", "created", "commit", "dirty", "iterations", "hours", *DESCRIPTIONS)


class RecordError(ValueError):
    """A file is no run record; the message names the file, what is wrong, and a remedy."""


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
    """A record of now, of this machine and of this source.

    `data` comes from `describe_data`; `device` is the accelerator's name, or the processor's unless given. `commit` is
    that of the source, None outside a git checkout; `dirty` tells whether the package's files differ from it.
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
    """Writes a record as strict JSON (nan and infinity as null, keys as strings), whole or not at all, see `atomic`.

    Its sha256 is its last key. Raises `RecordError` if a key is missing or a value has no place in JSON, `OSError`
    naming `path` if it cannot be written; an older record then stays as it was.
    """
    _check(record, path)
    write_json(record, path, seal=True)


def write_json(content: Any, path: str | Path, *, seal: bool = False) -> None:
    """Writes strict JSON: arrays as lists, nan and infinity as null, all keys as strings.

    With `seal` an object's sha256 becomes its last key.
    """
    try:
        text = json.dumps(sealed(content) if seal else _strict(content), indent=1, allow_nan=False, ensure_ascii=False)
    except TypeError as error:
        raise RecordError(f"{path}: {error}: give numbers, strings, lists and dictionaries") from None
    atomic_write(path, text.encode() + b"\n")


def read_record(path: str | Path) -> dict[str, Any]:
    """The record in a file. Raises `RecordError` if there is none, or if it is not as it was written."""
    return _checked(_read_json(path), path)


def find_records(folder: str | Path, *, broken: list[RecordError] | None = None) -> dict[Path, dict[str, Any]]:
    """All records in the JSON files below a folder, oldest first.

    JSON files without the key `experiment` are something else and left out, and so are hidden ones. Broken ones raise
    `RecordError`; with a list `broken` their errors are added to it, and the others are still read.
    """
    root, records = Path(folder), {}
    for path in sorted(path for path in root.rglob("*.json") if visible(path, root)):
        try:
            content = _read_json(path)
            if isinstance(content, dict) and "experiment" in content:
                records[path] = _checked(content, path)
        except RecordError as error:
            if broken is None:
                raise
            broken.append(error)
    return dict(sorted(records.items(), key=lambda item: str(item[1]["created"])))


def tabulate(records: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One row a record, oldest first: what was run, then each metric that is a single number.

    All rows have the same columns; None stands where a record lacks a metric or it was not a number.
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
    """The dotted names in which the records' configurations differ, with the value in each; None where it is absent."""
    flat = [flatten(record["config"]) for record in records]
    names = dict.fromkeys(name for config in flat for name in config)
    columns = {name: [config.get(name) for config in flat] for name in names}
    return {name: values for name, values in columns.items() if any(value != values[0] for value in values)}


def describe_data(root: str | Path, *, splits: Mapping[str, int], paths: Iterable[str | Path]) -> dict[str, Any]:
    """What a record says of its data: the folder's name, the images in each split, and the `fingerprint` of `paths`."""
    return {"name": Path(root).resolve().name, "splits": dict(splits), "fingerprint": fingerprint(paths)}


def fingerprint(paths: Iterable[str | Path]) -> str:
    """sha256 of a data set, the same wherever it lies and in whatever order `paths` come.

    `paths` are files, and folders of which every file counts. Annotations (`.json`) count with their content, images,
    which are too many to read, with their size in bytes; all with their names.
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
        git("ls-files", "--error-unmatch", "__init__.py")  # the checkout is ours, not one that we were installed into
        return git("rev-parse", "HEAD"), bool(git("status", "--porcelain", "--", "."))
    except (OSError, subprocess.SubprocessError):
        return None, None


def visible(path: Path, root: Path) -> bool:
    """Whether no name from `root` down starts with a dot: other systems leave `._photo.jpg` beside a photo."""
    return not any(part.startswith(".") for part in path.relative_to(root).parts)


def sealed(content: Mapping[str, Any]) -> dict[str, Any]:
    """A JSON object with a last key that holds the sha256 of all others."""
    content = {key: value for key, value in _strict(content).items() if key != SEAL}
    return content | {SEAL: hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()}


def is_intact(content: Mapping[str, Any]) -> bool:
    """Whether a JSON object is as `sealed` left it; true where it has no seal."""
    return SEAL not in content or sealed(content)[SEAL] == content[SEAL]


@contextmanager
def atomic(path: str | Path) -> Iterator[IO[bytes]]:
    """A binary file that takes the place of `path` when the block ends well, and leaves no trace when it does not.

    It is written beside `path`, forced to the disk and renamed, so that `path` always holds the whole old content or
    the whole new one. A full disk raises an `OSError` that names `path`.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("xb") as handle:
            yield handle
            handle.flush()
            os.fsync(handle.fileno())
        temporary.replace(path)
        _sync_folder(path.parent)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename in (None, str(temporary)):
            reason = f"{error.strerror or error}; what was there before is unchanged"
            raise OSError(error.errno, reason, str(path)) from error
        error.add_note(f"while writing {path}; what was there before is unchanged")
        raise


def atomic_write(path: str | Path, content: bytes | Callable[[IO[bytes]], Any]) -> None:
    """Writes bytes, or what a function writes into a binary file, by `atomic`."""
    with atomic(path) as handle:
        if callable(content):
            content(handle)
        else:
            handle.write(content)


def _sync_folder(folder: Path) -> None:
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _read_json(path: str | Path) -> Any:
    try:
        return json.loads(Path(path).read_bytes())
    except OSError as error:
        raise RecordError(f"{path}: cannot be read ({error.strerror})") from None
    except json.JSONDecodeError as error:
        raise RecordError(
            f"{path}: line {error.lineno}, column {error.colno}: {error.msg}: not JSON, or cut off; delete it and "
            "repeat the run"
        ) from None
    except (UnicodeDecodeError, RecursionError) as error:
        raise RecordError(f"{path}: not JSON text ({error}); delete it and repeat the run") from None


def _check(record: Any, path: str | Path) -> None:
    if not isinstance(record, Mapping):
        raise RecordError(f"{path}: holds {type(record).__name__}, not a run record")
    if missing := [key for key in KEYS if key not in record]:
        raise RecordError(f"{path}: no run record, it lacks {', '.join(missing)}: make records with `new_record`")
    if not is_intact(record):
        raise RecordError(f"{path}: damaged, or edited since it was written (its sha256 is another); repeat the run")
    for key in DESCRIPTIONS:
        if not isinstance(record[key], Mapping):
            raise RecordError(f"{path}: `{key}` is {type(record[key]).__name__}, not a dictionary")


def _checked(record: Any, path: str | Path) -> dict[str, Any]:
    """The record without its seal. Raises `RecordError` like `_check`."""
    _check(record, path)
    return {key: value for key, value in record.items() if key != SEAL}


def _strict(value: Any) -> Any:
    """The value in JSON's own types."""
    if isinstance(value, Mapping):
        return {str(key): _strict(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_strict(item) for item in value]
    if hasattr(value, "tolist"):  # arrays and scalars of NumPy
        return _strict(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dictionaries in dictionaries as one with dotted names."""
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
