"""Processes of runs: those that still live after what started them was killed, and training on several at once."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil

from spinet.experiments.plan import RECORD, ExperimentError
from spinet.experiments.settings import Overrides, as_options
from spinet.records import read_record

SWEEP, RUN = "SPINET_SWEEP", "SPINET_RUN"
"""Environment variables that hold the folder that a process works for; its children inherit them."""

GRACE = 5.0
"""Seconds that processes have to notice that their parent is gone: a kernel looks once a second."""


def living(variable: str, folder: Path) -> list[psutil.Process]:
    """Processes of this machine that were started to work for a folder, whoever their parent is now."""
    found = []
    for process in psutil.process_iter(["cmdline", "status"]):
        if process.info["status"] == psutil.STATUS_ZOMBIE:  # dead, though its parent does not know yet
            continue
        try:
            if process.environ().get(variable) == str(folder) and process.pid != os.getpid():
                found.append(process)
        except psutil.Error:  # gone meanwhile, or another user's
            continue
    return found


def refuse_while_living(variable: str, folder: Path) -> None:
    """Raises `ExperimentError` if processes of an earlier call still work for the folder, after giving them `GRACE`."""
    psutil.wait_procs(living(variable, folder), timeout=GRACE)
    alive = {process.pid: " ".join((process.info["cmdline"] or [])[:4]) for process in living(variable, folder)}
    if alive:
        names = ", ".join(f"{pid} ({command} …)" for pid, command in alive.items())
        pids = " ".join(map(str, alive))
        raise ExperimentError(
            f"{folder}: processes of an earlier call still work there: {names}; wait for them, or end them: kill {pids}"
        )


def end(processes: list[psutil.Process]) -> None:
    """Ends processes, by force those that do not go."""
    for process in processes:
        process.terminate()
    _, alive = psutil.wait_procs(processes, timeout=GRACE)
    for process in alive:
        process.kill()


def train_on_processes(
    processes: int,
    *,
    preset: str,
    data: str | Path,
    out: Path,
    experiment: str,
    overrides: Overrides,
    restarts: int = 3,
) -> dict[str, Any]:
    """`spinet train` on several processes of this machine, started anew from the last checkpoint when one dies.

    Args:
        processes: one for each GPU; on a CPU they share the cores.
        overrides: of the preset.
        restarts: times that `torchrun` starts the group again.

    Returns:
        The run record.

    Raises:
        ExperimentError: training failed; the message holds the error's last line.
    """
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    command += [f"--max-restarts={restarts}", "-m", "spinet.cli", *train_command(preset, data, out, overrides)[1:]]
    command += ["--experiment", experiment]
    log = out / "torchrun.log"
    out.mkdir(parents=True, exist_ok=True)
    # without this a group that is started again reads addresses of the dead one (pytorch issue 135712)
    environment = {**os.environ, "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
    with log.open("wb") as file:
        code = subprocess.run(
            command, env=environment, stdout=file, stderr=subprocess.STDOUT, preexec_fn=_end_with_parent
        ).returncode
    if code:
        lines = log.read_text(errors="replace").splitlines()
        said = [line for line in lines if line.startswith("error:")] or lines[-1:]
        raise ExperimentError(f"{log}: training on {processes} processes failed: {said[-1] if said else code}")
    return read_record(out / RECORD)


def train_command(preset: str, data: str | Path, out: Path, overrides: Overrides) -> list[str]:
    """The same training on the command line."""
    options = ["--preset", preset, "--data", str(data), "--out", str(out), "--resume"]
    return ["spinet", "train", *options, *as_options(overrides)]


def _end_with_parent() -> None:
    """Has this process, before it becomes `torchrun`, get a SIGTERM when its parent ends; it then ends its workers."""
    if sys.platform == "linux":
        set_parent_death_signal = 1
        ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGTERM)
