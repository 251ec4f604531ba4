"""Files: atomic writes, JSON with a checksum and clear errors, and a lock for an output folder."""

from __future__ import annotations

import hashlib
import json
import math
import os
import socket
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

LOCK = ".lock"
SEAL = "sha256"  # last key of a JSON object: the checksum of the other keys


class FileError(ValueError):
    """A file cannot be read or written."""


class LockError(RuntimeError):
    """Another process uses the folder, or the folder cannot be made."""


@contextmanager
def atomic(path: str | Path) -> Iterator[IO[bytes]]:
    """A binary file that replaces `path` if the block ends without an error; otherwise it is removed.

    It is written in the same folder, flushed to the disk and renamed, so `path` always has the complete old or the
    complete new content. A full disk raises an `OSError` that names `path`.
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
    """Writes bytes, or the output of a function that writes to a binary file, by `atomic`."""
    with atomic(path) as handle:
        if callable(content):
            content(handle)
        else:
            handle.write(content)


def write_json(content: Any, path: str | Path, *, seal: bool = False) -> None:
    """Writes strict JSON: arrays as lists, nan and infinity as null, all keys as strings.

    With `seal` the last key of an object is its sha256.
    """
    try:
        text = json.dumps(sealed(content) if seal else _strict(content), indent=1, allow_nan=False, ensure_ascii=False)
    except TypeError as error:
        raise FileError(f"{path}: {error}: give numbers, strings, lists and dictionaries") from None
    atomic_write(path, text.encode() + b"\n")


def read_json(path: str | Path, *, error: type[Exception] = FileError, remedy: str = "write it again") -> Any:
    """The content of a JSON file.

    Args:
        error: type of the error if the file cannot be read or is not JSON; its message names the file and the line.
        remedy: advice in that message.
    """
    try:
        content = Path(path).read_bytes()
    except OSError as failure:
        raise error(f"{path}: cannot be read ({failure.strerror})") from None
    return parse_json(content, path, error=error, remedy=remedy)


def parse_json(
    content: bytes, path: str | Path, *, error: type[Exception] = FileError, remedy: str = "write it again"
) -> Any:
    """Parses the bytes of a JSON file like `read_json`; `path` is only for the message."""
    try:
        return json.loads(content)
    except json.JSONDecodeError as failure:
        place = f"line {failure.lineno}, column {failure.colno}"
        raise error(f"{path}: {place}: {failure.msg}: not JSON, or cut off; {remedy}") from None
    except (UnicodeDecodeError, RecursionError) as failure:
        raise error(f"{path}: not JSON text ({failure}); {remedy}") from None


def sealed(content: Mapping[str, Any]) -> dict[str, Any]:
    """A JSON object with a last key, the sha256 of all others."""
    content = {key: value for key, value in _strict(content).items() if key != SEAL}
    return content | {SEAL: hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()}


def is_intact(content: Mapping[str, Any]) -> bool:
    """Whether a JSON object still matches its seal; True if it has no seal."""
    return SEAL not in content or sealed(content)[SEAL] == content[SEAL]


def visible(path: Path, root: Path) -> bool:
    """Whether no name below `root` starts with a dot; macOS, for example, adds `._photo.jpg` to a photo."""
    return not any(part.startswith(".") for part in path.relative_to(root).parts)


def refuse_file(folder: Path) -> None:
    """Raises `LockError` if the path of an output folder is a file."""
    if folder.exists() and not folder.is_dir():
        raise LockError(f"{folder}: is a file, not a folder; choose another --out")


@contextmanager
def owned(folder: Path) -> Iterator[None]:
    """Locks the folder for this process until the block ends; makes the folder if it is missing.

    The operating system releases the lock whenever the process ends. Child processes do not inherit it. On Windows
    there is no lock.

    Raises:
        LockError: another process has locked the folder (the message names it), or the path is a file.
    """
    refuse_file(folder)
    try:
        import fcntl
    except ImportError:
        yield
        return
    path = folder / LOCK
    made = [place for place in (folder, *folder.parents) if not place.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            owner = os.read(descriptor, 200).decode(errors="replace").strip() or "another process"
            os.close(descriptor)
            raise LockError(f"{folder}: in use by {owner}; wait until it ends, or choose another --out") from None
        if _is_at(path, descriptor):
            break
        os.close(descriptor)  # the previous owner has just removed its lock file
    try:
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode())
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(descriptor)
        with suppress(OSError):  # remove new folders that stayed empty
            for place in made:
                place.rmdir()


def _is_at(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _sync_folder(folder: Path) -> None:
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _strict(value: Any) -> Any:
    """The value in JSON types."""
    if isinstance(value, Mapping):
        return {str(key): _strict(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_strict(item) for item in value]
    if hasattr(value, "tolist"):  # arrays and scalars of NumPy
        return _strict(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value
