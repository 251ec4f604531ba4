"""Training on several processes of this machine: one for each GPU, started by torchrun."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from spinet.config.overrides import Overrides, as_options
from spinet.records import read_record
from spinet.training.checkpoint import TrainError
from spinet.training.outcome import RECORD


def train_on_processes(
    processes: int,
    *,
    preset: str,
    data: str | Path,
    out: Path,
    experiment: str,
    base: Overrides,
    overrides: Overrides,
    init: str | Path | None = None,
    restarts: int = 3,
) -> dict[str, Any]:
    """Runs `spinet train` on several processes. If one dies, all restart from the last checkpoint.

    Args:
        processes: number of processes, one for each GPU; on a CPU they share the cores.
        base: overrides of the preset, shared by all rows of a table.
        overrides: further overrides, of this run.
        init: initial weights, see `spinet.training.loop.train`.
        restarts: maximum number of restarts.

    Returns:
        The run record.

    Raises:
        TrainError: training failed; the message has the last line of the error.
    """
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    command += [f"--max-restarts={restarts}", "-m", "spinet.cli"]
    command += [*train_command(preset, data, out, base, overrides, init)[1:], "--experiment", experiment]
    log = out / "torchrun.log"
    out.mkdir(parents=True, exist_ok=True)
    # without this, restarted processes read the addresses of the dead ones (pytorch issue 135712)
    environment = {**os.environ, "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
    with log.open("wb") as file:
        code = subprocess.run(
            command, env=environment, stdout=file, stderr=subprocess.STDOUT, preexec_fn=end_with_parent
        ).returncode
    if code:
        lines = log.read_text(errors="replace").splitlines()
        errors = [line for line in lines if line.startswith("error:")] or lines[-1:]
        raise TrainError(f"{log}: training on {processes} processes failed: {errors[-1] if errors else code}")
    return read_record(out / RECORD)


def train_command(
    preset: str, data: str | Path, out: Path, base: Overrides, overrides: Overrides, init: str | Path | None = None
) -> list[str]:
    """The equivalent `spinet train` command."""
    shared = [f"{name}={json.dumps(value)}" for name, value in base.items()]
    options = ["--preset", preset, "--data", str(data), "--out", str(out), "--resume", "--base", *shared]
    options += ["--init", str(init)] if init else []
    return ["spinet", "train", *options, *as_options(overrides)]


def end_with_parent() -> None:
    """Makes the system send SIGTERM to this new process when its parent ends. Call it before the program starts."""
    if sys.platform == "linux":
        set_parent_death_signal = 1
        ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGTERM)
