"""Checkpoints of a training run: written atomically, verified by their sha256 when loaded."""

from __future__ import annotations

import hashlib
import io
import pickle
from pathlib import Path
from typing import Any

import torch

from spinet.files import atomic_write

KEPT = 2


class CheckpointError(ValueError):
    """A checkpoint that cannot be used."""


class TrainError(RuntimeError):
    """Training cannot start or continue."""


def save_checkpoint(folder: Path, iteration: int, state: dict[str, Any]) -> Path:
    """Writes the sha256 file, then `checkpoint_<iteration>.pt`. Then removes all but the `KEPT` newest checkpoints."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    content = buffer.getbuffer()
    path = folder / f"checkpoint_{iteration:07d}.pt"
    atomic_write(path.with_suffix(".sha256"), hashlib.sha256(content).hexdigest().encode())
    atomic_write(path, lambda file: file.write(content))
    for old in find_checkpoints(folder)[:-KEPT]:
        old.unlink()
        old.with_suffix(".sha256").unlink(missing_ok=True)
    return path


def find_checkpoints(folder: Path) -> list[Path]:
    """The checkpoints in a folder, oldest first."""
    return sorted(folder.glob("checkpoint_*.pt"))


def iteration_of(path: Path) -> int:
    """The iteration of a checkpoint, from its file name."""
    return int(path.stem.removeprefix("checkpoint_"))


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Loads the state that `save_checkpoint` wrote, on the CPU.

    Raises:
        CheckpointError: the file does not match its sha256, or is not a checkpoint.
    """
    digest = path.with_suffix(".sha256")
    others = [other.name for other in find_checkpoints(path.parent) if other != path]
    remedy = f"delete it to continue from {others[-1]}" if others else "delete it to start from scratch"
    content = path.read_bytes()
    if not digest.is_file() or hashlib.sha256(content).hexdigest() != digest.read_text().strip():
        raise CheckpointError(f"{path}: damaged (its sha256 differs from {digest.name}); {remedy}")
    try:
        return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except (RuntimeError, pickle.UnpicklingError, EOFError) as error:
        raise CheckpointError(f"{path}: not a checkpoint ({str(error).splitlines()[0]}); {remedy}") from None
