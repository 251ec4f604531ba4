"""An output folder has one owner: a lock that is gone when the process is."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

NAME = ".lock"


class LockError(RuntimeError):
    """Another process works in the folder."""


def refuse_file(folder: Path) -> None:
    """Raises `LockError` if a file lies where a folder is to be."""
    if folder.exists() and not folder.is_dir():
        raise LockError(f"{folder}: is a file, where a folder is to be made; choose another --out")


@contextmanager
def owned(folder: Path) -> Iterator[None]:
    """Keeps other processes from owning the folder, which is made if it is not there, until the block ends.

    The system drops the lock with the process, however that ends; its children do not hold it. Where there are no such
    locks (Windows) nothing is kept.

    Raises:
        LockError: another process owns the folder; the message says which. Or it is a file.
    """
    refuse_file(folder)
    try:
        import fcntl
    except ImportError:
        yield
        return
    path = folder / NAME
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
        os.close(descriptor)  # the owner before has just removed its file
    try:
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode())
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(descriptor)
        with suppress(OSError):  # a folder in which nothing came about goes again
            for place in made:
                place.rmdir()


def _is_at(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False
