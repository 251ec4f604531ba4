"""What a training run goes on from: which settings may change on the way, and which folder holds another run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from spinet.config import Config, from_dict, to_dict
from spinet.records import flatten
from spinet.training.checkpoint import CheckpointError, TrainError, find_checkpoints, iteration_of

FREE = {"input.workers", "train.images_per_device", "train.log"}
"""Settings that do not alter what a step computes, but for its rounding."""

ADJUSTABLE = {
    *("train.learning_rate", "train.warmup", "train.clip_norm", "train.precision"),
    *("train.iterations", "train.evaluate_every", "train.checkpoint_every"),
}
"""Settings that may change on the way, which the record's history then tells; so may all of `inference`."""

NEEDS_STEPS = {"train.learning_rate", "train.warmup", "train.clip_norm", "train.precision"}
"""Of these the ones that do nothing where no iteration is left."""


def existing_checkpoints(out: Path, *, resume: bool) -> list[Path]:
    """The checkpoints to go on from, oldest first; none where there is nothing yet.

    Raises:
        TrainError: the folder holds a run, and it is not to be resumed, or cannot be.
    """
    checkpoints, weights = find_checkpoints(out), out / "model.safetensors"
    held = next((path for path in (*checkpoints[-1:], out / "record.json", weights) if path.exists()), None)
    if held and not resume:
        raise TrainError(f"{out}: holds a run already ({held.name}); add --resume, or choose another --out")
    if resume and not checkpoints and weights.exists():
        raise TrainError(f"{weights}: trained weights, but no checkpoint to go on from; choose another --out")
    return checkpoints


def settled_history(state: dict[str, Any], config: Config, fingerprint: str, checkpoint: Path) -> list[dict[str, Any]]:
    """The history of a run that goes on from a checkpoint's state: what changed so far, and what changes now.

    Each entry says the `iteration` from which on it holds, and what `changed`: name, old value, new value.

    Raises:
        CheckpointError: a setting that defines the run differs, or the data do; or a change would do nothing.
    """
    old, new = (flatten(to_dict(c)) for c in (from_dict(state["config"]), config))
    names = [name for name in {**old, **new} if old.get(name) != new.get(name) and name not in FREE]
    told = {name: f"{name} was {old.get(name)}, is {new.get(name)}" for name in names}
    fixed = [name for name in names if name not in ADJUSTABLE and not name.startswith("inference.")]
    if fixed:
        differences = "; ".join(told[name] for name in fixed)
        raise CheckpointError(
            f"{checkpoint}: of other settings: {differences}; set these back, or choose another --out"
        )
    if state.get("fingerprint", fingerprint) != fingerprint:
        raise CheckpointError(
            f"{checkpoint}: trained on other data (the JSON files differ); restore these, or choose another --out"
        )
    start = state["iteration"]
    if config.train.iterations < start:
        raise CheckpointError(
            f"{checkpoint}: has {start} iterations behind it, train.iterations is {config.train.iterations}; raise it"
        )
    if start == config.train.iterations and (idle := sorted(NEEDS_STEPS & set(names))):
        raise CheckpointError(
            f"{checkpoint}: no iteration is left in which this would do something: {told[idle[0]]}; raise "
            "train.iterations, too, or set it back"
        )
    history = list(state.get("history", []))
    if names:
        history.append({"iteration": start, "changed": {name: [old.get(name), new.get(name)] for name in names}})
    return history


def remedy_for_non_finite(out: Path, iteration: int, precision: str, *, act: bool) -> str:
    """What to do about a loss that is not finite.

    A checkpoint of this very iteration gives such a loss itself, unless fp16 does: it is set aside (if `act`).
    """
    checkpoints = find_checkpoints(out)
    if checkpoints and iteration_of(checkpoints[-1]) == iteration and precision != "fp16":
        bad = checkpoints.pop()
        if act:
            bad.replace(bad.with_suffix(".nonfinite"))
            bad.with_suffix(".sha256").unlink(missing_ok=True)
    where = f"goes on from {checkpoints[-1].name}" if checkpoints else "starts anew"
    return f"lower train.learning-rate or use train.precision fp32, then --resume, which {where}"
