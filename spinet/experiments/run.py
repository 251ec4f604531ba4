"""One run of a sweep: papermill executes the notebook, which continues a killed run from its last checkpoint.

`python -m spinet.experiments.run PLAN RUN`; Snakemake calls it. The executed notebook gets its final name only after
success: it marks the run as done.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import papermill
from papermill.exceptions import PapermillExecutionError, strip_color
from traitlets.config import Config

from spinet.experiments.sweep import AT_WORK, FAILURE, ExperimentError, Plan
from spinet.files import atomic_write, owned
from spinet.training.checkpoint import find_checkpoints

BEGUN = "begun.ipynb"
"""Name of the notebook during the execution and after a failure."""

ATTEMPTS = 3
"""Maximum number of kernel starts: a kernel may be killed."""


def execute(plan: Plan, name: str, out: Path) -> None:
    """Executes a run of a plan in its subfolder of `out`, unless it is done.

    Raises:
        ExperimentError: the folder has another run, or a cell failed; the message names the cell and the notebook.
        LockError: another process executes the run.
    """
    run, folder = plan.runs[name], out / name
    folder.mkdir(parents=True, exist_ok=True)
    with owned(out / name / AT_WORK), _devices(plan, out):
        if plan.is_done(run, folder):
            return
        (folder / FAILURE).unlink(missing_ok=True)
        if run.source:
            _share_training(out / run.source, folder)
        try:
            run_notebook(
                Path(plan.notebook),
                folder / BEGUN,
                parameters=plan.parameters(run, folder),
                timeout=plan.timeout_hours * 3600,
            )
        except Exception as error:
            atomic_write(folder / FAILURE, f"{error}\n".encode())
            raise
        for checkpoint in find_checkpoints(folder)[:-1]:  # keep the last one for runs that differ only in inference
            checkpoint.unlink()
            checkpoint.with_suffix(".sha256").unlink(missing_ok=True)
        (folder / BEGUN).replace(folder / Path(plan.notebook).name)


def run_notebook(notebook: Path, executed: Path, *, parameters: Mapping[str, Any], timeout: float) -> None:
    """Executes a notebook with parameters and writes the result to `executed`.

    Args:
        timeout: maximum seconds for a cell.

    Raises:
        ExperimentError: a cell failed or took too long, or the kernel died `ATTEMPTS` times.
    """
    for attempt in range(1, ATTEMPTS + 1):
        try:
            # sockets in a separate folder: kernels that start together would compete for TCP ports
            with TemporaryDirectory(prefix="kernel-") as sockets:
                papermill.execute_notebook(
                    notebook,
                    executed,
                    dict(parameters),
                    cwd=executed.parent,
                    kernel_name="python3",
                    progress_bar=False,
                    start_timeout=300,
                    execution_timeout=round(timeout),
                    config=Config(KernelManager={"transport": "ipc", "ip": f"{sockets}/socket"}),
                )
            return
        except PapermillExecutionError as error:
            cell = "\n".join(f"    {line}" for line in error.source.splitlines())
            reason = strip_color(f"{error.ename}: {error.evalue}")
            raise ExperimentError(f"{executed}: cell [{error.exec_count}] failed:\n{cell}\n{reason}") from None
        except TimeoutError:
            raise ExperimentError(
                f"{executed}: a cell took more than {timeout / 3600:g} hours; call again to continue from its last "
                "checkpoint, or raise --timeout-hours"
            ) from None
        except RuntimeError as error:  # the kernel died or did not answer
            print(f"{executed}: attempt {attempt} of {ATTEMPTS}: {error}", file=sys.stderr, flush=True)
    raise ExperimentError(f"{executed}: its kernel died {ATTEMPTS} times (out of memory?); call again to continue")


def _share_training(source: Path, folder: Path) -> None:
    """Copies the last checkpoint and the log of a run with the same training, so that only the evaluation remains."""
    if find_checkpoints(folder):
        return
    checkpoint = find_checkpoints(source)[-1]
    for path in (source / "log.csv", checkpoint.with_suffix(".sha256"), checkpoint):
        if path.exists():
            with path.open("rb") as file:
                atomic_write(folder / path.name, lambda copy, file=file: shutil.copyfileobj(file, copy))


@contextmanager
def _devices(plan: Plan, out: Path) -> Iterator[None]:
    """Assigns GPUs of this machine to the run: those of the first free worker."""
    if not plan.gpus:
        yield
        return
    for worker in range(plan.workers):
        with (out / f".gpu{worker}").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                continue
            chosen = [(worker * plan.processes + i) % plan.gpus for i in range(plan.processes)]
            os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, chosen))
            yield
            return
    raise ExperimentError(f"{out}: more than {plan.workers} runs at once; start runs only by spinet sweep")


if __name__ == "__main__":
    plan_file, name = Path(sys.argv[1]), sys.argv[2]
    try:
        execute(Plan.read(plan_file), name, plan_file.resolve().parent)
    except (ValueError, RuntimeError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(1) from None
