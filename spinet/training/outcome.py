"""How a run ended, as its record says: "running", "interrupted", "failed", "trained" (evaluation lacks), "finished"."""

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
"""Validation images on which the Panoptic-Feature is measured."""


def data_facts(train_set: PanopticDataset, val_set: PanopticDataset) -> dict[str, Any]:
    """What a record says of its data, see `describe_data`."""
    places = find_splits(train_set.root)
    return describe_data(
        train_set.root,
        splits={"train": len(train_set), "val": len(val_set)},
        paths=[places[part.split].annotations for part in (train_set, val_set)],
    )


def metrics_of(result: dict[str, Any], features: dict[str, Any]) -> dict[str, Any]:
    """A record's metrics: the paper's columns in percent, the details of a `validate`, and the `feature_measures`."""
    details = {name: value for name, value in result.items() if name != "headline"}
    return {**details, **result["headline"], "features": features}


def feature_measures(model: Model, val_set: PanopticDataset, folder: Path) -> dict[str, Any]:
    """§4: what `feature_metrics` finds on the first `FEATURE_IMAGES`.

    Empty for a system without a Panoptic-Feature: no heads of auxiliary tasks lie in the folder of its run.
    """
    if not (folder / OBJECTIVE).exists():
        return {}
    contour = load_objective(folder / OBJECTIVE, device=model.device).inter
    images = val_set.with_categories(model.categories)
    return feature_metrics(model, (images[index] for index in range(min(FEATURE_IMAGES, len(images)))), contour=contour)


def note_end(out: Path, before: bytes | None, error: BaseException) -> BaseException:
    """Writes into the record of a run how it was ended, and says what is left of it.

    Args:
        before: what the record file held before the run; if it holds it still, the run had not begun.

    Returns:
        The error to raise: `error` itself, or one that says how to go on.
    """
    path = out / RECORD
    if stored(path) in (None, before):
        return error
    stopped = isinstance(error, KeyboardInterrupt)
    record = read_record(path)
    if record["status"] == "running":
        record["status"] = "interrupted" if stopped else "failed"
    reason = " ".join(str(error).split()) or type(error).__name__
    with suppress(OSError):  # the error to tell is the first one
        write_record(record | {"error": reason}, path)
    if record["status"] == "trained":
        remedy = f"training is done: spinet evaluate --weights {out / WEIGHTS} --data … finishes it"
        return type(error)(remedy) if stopped else TrainError(f"{reason}; {remedy}")
    if stopped and not str(error):
        checkpoints = find_checkpoints(out)
        left = f"--resume goes on from {checkpoints[-1]}" if checkpoints else "no checkpoint was written yet"
        return type(error)(left)
    return error


def stored(path: Path) -> bytes | None:
    """What a file holds; None where there is none."""
    return path.read_bytes() if path.is_file() else None


def finish(weights: Path, result: dict[str, Any], val_set: PanopticDataset, *, device: str = "cpu") -> Path | None:
    """Enters an evaluation into the record beside the weights, if that lacks one and is of the same data.

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
