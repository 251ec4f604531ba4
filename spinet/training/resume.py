"""Resuming a training run: which folders can be resumed, and which settings may change."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from spinet.config import Config, from_dict, to_dict
from spinet.records import flatten
from spinet.training.checkpoint import CheckpointError, TrainError, find_checkpoints, iteration_of

FREE = {"input.workers", "train.images_per_device", "train.log"}
"""Settings that change the result of a step only by rounding."""

ADJUSTABLE = {
    *("train.learning_rate", "train.warmup", "train.clip_norm", "train.precision"),
    *("train.iterations", "train.evaluate_every", "train.checkpoint_every", "train.snapshots"),
}
"""Settings that may change, like all of `inference`; the history in the record lists the changes."""

NEEDS_STEPS = {"train.learning_rate", "train.warmup", "train.clip_norm", "train.precision"}
"""Adjustable settings that have no effect if no iteration is left."""


def existing_checkpoints(out: Path, *, resume: bool) -> list[Path]:
    """The checkpoints to resume from, oldest first; none for a new run.

    Raises:
        TrainError: the folder holds a run, but `resume` is false, or it has weights and no checkpoint.
    """
    checkpoints, weights = find_checkpoints(out), out / "model.safetensors"
    held = next((path for path in (*checkpoints[-1:], out / "record.json", weights) if path.exists()), None)
    if held and not resume:
        raise TrainError(f"{out}: holds a run already ({held.name}); add --resume, or choose another --out")
    if resume and not checkpoints and weights.exists():
        raise TrainError(f"{weights}: trained weights, but no checkpoint to resume from; choose another --out")
    return checkpoints


def settled_history(state: dict[str, Any], config: Config, fingerprint: str, checkpoint: Path) -> list[dict[str, Any]]:
    """The history of a resumed run: the changes of settings so far, and those made now.

    Each entry has the `iteration` at which settings `changed`, and these: name, old value, new value.

    Raises:
        CheckpointError: a setting that must not change differs, the data differ, or a change has no effect.
    """
    old, new = (flatten(to_dict(c)) for c in (from_dict(state["config"]), config))
    names = [name for name in {**old, **new} if old.get(name) != new.get(name) and name not in FREE]
    told = {name: f"{name} was {old.get(name)}, is {new.get(name)}" for name in names}
    fixed = [name for name in names if name not in ADJUSTABLE and not name.startswith("inference.")]
    if fixed:
        differences = "; ".join(told[name] for name in fixed)
        raise CheckpointError(
            f"{checkpoint}: has other settings: {differences}; restore these, or choose another --out"
        )
    if state.get("fingerprint", fingerprint) != fingerprint:
        raise CheckpointError(
            f"{checkpoint}: trained on other data (the JSON files differ); restore these, or choose another --out"
        )
    start = state["iteration"]
    if config.train.iterations < start:
        raise CheckpointError(
            f"{checkpoint}: is at iteration {start}, but train.iterations is {config.train.iterations}; increase it"
        )
    if start == config.train.iterations and (idle := sorted(NEEDS_STEPS & set(names))):
        raise CheckpointError(
            f"{checkpoint}: no iteration is left for this change: {told[idle[0]]}; also increase "
            "train.iterations, or restore the setting"
        )
    history = list(state.get("history", []))
    if names:
        history.append({"iteration": start, "changed": {name: [old.get(name), new.get(name)] for name in names}})
    return history


def remedy_for_non_finite(out: Path, iteration: int, precision: str, *, act: bool) -> str:
    """The advice for a loss that is not finite.

    Except in fp16, a checkpoint of the same iteration would give this loss again. If `act`, it is renamed.
    """
    checkpoints = find_checkpoints(out)
    if checkpoints and iteration_of(checkpoints[-1]) == iteration and precision != "fp16":
        bad = checkpoints.pop()
        if act:
            bad.replace(bad.with_suffix(".nonfinite"))
            bad.with_suffix(".sha256").unlink(missing_ok=True)
    where = f"continues from {checkpoints[-1].name}" if checkpoints else "starts from scratch"
    return f"lower train.learning-rate or use train.precision fp32, then --resume, which {where}"
