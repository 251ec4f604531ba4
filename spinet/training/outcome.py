"""Status in a run record: "running", "interrupted", "failed", "trained" (not yet evaluated), "finished"."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

from spinet.data import PanopticDataset, find_splits, open_dataset
from spinet.evaluation.clustering import feature_metrics
from spinet.records import RecordError, describe_data, read_record, write_record
from spinet.system import Model
from spinet.training.checkpoint import TrainError, find_checkpoints
from spinet.weights import load_model, load_objective

RECORD, WEIGHTS, OBJECTIVE = "record.json", "model.safetensors", "auxiliary.safetensors"

FEATURE_IMAGES = 50
"""Number of validation images for measures of the Panoptic-Feature."""


def data_facts(train_set: PanopticDataset, val_set: PanopticDataset) -> dict[str, Any]:
    """The description of the data in a record, see `describe_data`."""
    splits = find_splits(train_set.root)
    return describe_data(
        train_set.root,
        splits={"train": len(train_set), "val": len(val_set)},
        paths=[splits[part.split].annotations for part in (train_set, val_set)],
    )


def metrics_of(result: dict[str, Any], features: dict[str, Any]) -> dict[str, Any]:
    """The metrics of a record: the paper's columns in percent, details of `validate`, and `feature_measures`."""
    details = {name: value for name, value in result.items() if name != "summary"}
    return {**details, **result["summary"], "features": features}


def feature_measures(model: Model, val_set: PanopticDataset, folder: Path) -> dict[str, Any]:
    """§4: `feature_metrics` of the first `FEATURE_IMAGES`.

    Empty for a system without a Panoptic-Feature: its run folder has no auxiliary heads.
    """
    if not (folder / OBJECTIVE).exists():
        return {}
    contour = load_objective(folder / OBJECTIVE, device=model.device).inter
    images = val_set.with_categories(model.categories)
    return feature_metrics(model, (images[index] for index in range(min(FEATURE_IMAGES, len(images)))), contour=contour)


def note_end(out: Path, before: bytes | None, error: BaseException, *, resume: bool) -> BaseException:
    """Writes into the record how the run ended.

    Args:
        before: content of the record file before the run; if it is unchanged, the run had not begun.
        resume: whether the run was to continue from its last checkpoint; then the same command does so again.

    Returns:
        The error to raise: `error` itself, or one that says how to continue.
    """
    path = out / RECORD
    if stored(path) in (None, before):
        return error
    stopped = isinstance(error, KeyboardInterrupt)
    record = read_record(path)
    if record["status"] == "running":
        record["status"] = "interrupted" if stopped else "failed"
    reason = " ".join(str(error).split()) or type(error).__name__
    with suppress(OSError):  # report the original error
        write_record(record | {"error": reason}, path)
    if record["status"] == "trained":
        remedy = f"training is done; evaluate with: spinet evaluate --weights {out / WEIGHTS} --data …"
        return type(error)(remedy) if stopped else TrainError(f"{reason}; {remedy}")
    if not stopped:
        return error
    checkpoints = find_checkpoints(out)
    if not checkpoints:
        return type(error)("no checkpoint was written yet")
    saved = str(error) or f"the last checkpoint is {checkpoints[-1]}"
    return type(error)(f"{saved}; the same command{'' if resume else ' with --resume'} goes on")


def stored(path: Path) -> bytes | None:
    """The content of a file; None if there is no file."""
    return path.read_bytes() if path.is_file() else None


def finish(weights: Path, result: dict[str, Any], val_set: PanopticDataset, *, device: str = "cpu") -> Path | None:
    """Writes an evaluation into the record beside the weights, if the record lacks one and has the same data.

    Returns:
        The record's path, if it was finished.
    """
    path = weights.parent / RECORD
    try:
        record = read_record(path)
    except RecordError:
        return None
    if weights.name != WEIGHTS or record["status"] != "trained":
        return None
    if record["data"] != data_facts(open_dataset(val_set.root, "train"), val_set):
        return None
    record = {name: value for name, value in record.items() if name != "error"}
    features = feature_measures(load_model(weights, device=device), val_set, weights.parent)
    metrics = metrics_of(result, features)
    write_record(record | {"status": "finished", "metrics": metrics}, path)
    return path
