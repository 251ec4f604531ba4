"""The driver of one run: executes its notebook by papermill, goes on where a killed one stopped, and marks it as done.

`python -m spinet.experiments.run PLAN RUN`; Snakemake calls it. An executed notebook's own metadata claims success
after a kill, so only the manifest counts, which is written last, atomically, and after success alone.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import resource
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import nbformat
import papermill
from papermill.exceptions import PapermillExecutionError, strip_color
from traitlets.config import Config

from spinet.config import to_dict
from spinet.experiments.plan import FAILURE, RECORD, ExperimentError, Plan, check_folder, write_manifest
from spinet.experiments.processes import RUN, end, living, refuse_while_living
from spinet.files import atomic_write
from spinet.records import read_record
from spinet.training.checkpoint import find_checkpoints

RESULTS = {".ipynb", ".json", ".csv", ".safetensors"}
"""Of a run: the executed notebook, the record, the log, the weights; not the checkpoints."""

ATTEMPTS = 3
"""Times that a kernel is started, for one may be killed."""


def execute(plan: Plan, name: str, folder: Path) -> None:
    """Carries out a run of a plan in its folder, unless it is done.

    Raises:
        ExperimentError: there is no such run, the folder holds another one, it is being carried out already, or a cell
            failed; the message names the cell, its error and the notebook.
    """
    run = plan.find(name)
    folder.mkdir(parents=True, exist_ok=True)
    began = perf_counter()
    os.environ[RUN] = str(folder)  # its children inherit it, and can be found by it
    refuse_while_living(RUN, folder)
    with _devices(plan, folder.parent):
        config = plan.config(run)
        if check_folder(folder, run, config):
            return
        (folder / FAILURE).unlink(missing_ok=True)
        if run.source:
            _share_training(folder.parent / run.source, folder)
        try:
            run_notebook(
                Path(plan.notebook),
                folder / Path(plan.notebook).name,
                parameters=plan.parameters(run, folder),
                timeout=plan.timeout_hours * 3600,
            )
            record = read_record(folder / RECORD)
            if record["status"] != "finished" or record["config"] != to_dict(config):
                raise ExperimentError(f"{folder / RECORD}: the notebook ended well but left no finished record of it")
        except Exception as error:
            atomic_write(folder / FAILURE, f"{error}\n".encode())
            raise
        facts = {
            "seconds": round(perf_counter() - began, 1),
            "peak_memory_mb": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024,  # of the largest process
        }
        results = sorted(path.name for path in folder.iterdir() if path.suffix in RESULTS)
        write_manifest(folder, run, results, facts)
        for checkpoint in find_checkpoints(folder)[:-1]:  # the last one serves runs that differ in inference alone
            checkpoint.unlink()
            checkpoint.with_suffix(".sha256").unlink(missing_ok=True)


def run_notebook(notebook: Path, executed: Path, *, parameters: Mapping[str, Any], timeout: float) -> None:
    """Executes a notebook with parameters, all of which it must know, and keeps the result as `executed`.

    Args:
        timeout: seconds that a cell may take.

    Raises:
        ExperimentError: see `check_parameters`; a cell failed or took too long; the kernel died again and again.
    """
    check_parameters(notebook, parameters)
    for attempt in range(1, ATTEMPTS + 1):
        try:
            # sockets in a folder of their own: kernels that start at once would race for TCP ports
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
                f"{executed}: a cell took more than {timeout / 3600:g} hours; call again, it goes on from its last "
                "checkpoint, or raise --timeout-hours"
            ) from None
        except RuntimeError as error:  # the kernel died, or never answered
            print(f"{executed}: attempt {attempt} of {ATTEMPTS}: {error}", file=sys.stderr, flush=True)
            end(living(RUN, executed.parent))  # what the kernel had started
    raise ExperimentError(f"{executed}: its kernel died {ATTEMPTS} times (out of memory?); call again to go on")


def check_parameters(notebook: Path, parameters: Mapping[str, Any]) -> None:
    """Papermill itself only warns of what it does not know.

    Raises:
        ExperimentError: there is no notebook, it has no cell tagged "parameters", or one of the names is not in it.
    """
    try:
        cells = nbformat.read(notebook, as_version=4).cells
    except (OSError, ValueError) as error:
        raise ExperimentError(f"{notebook}: no notebook ({error}); sweeps run from a checkout of the project") from None
    if not any("parameters" in cell.metadata.get("tags", []) for cell in cells):
        raise ExperimentError(f"{notebook}: has no cell tagged 'parameters', so nothing can be passed to it; tag one")
    known = papermill.inspect_notebook(str(notebook))
    if unknown := [name for name in parameters if name not in known]:
        raise ExperimentError(f"{notebook}: has no parameter {unknown[0]!r}; it has {', '.join(known)}")


def _share_training(source: Path, folder: Path) -> None:
    """Brings the last checkpoint and the log of a run that was trained alike: only the evaluation remains."""
    if find_checkpoints(folder):
        return
    checkpoint = find_checkpoints(source)[-1]
    for path in (source / "log.csv", checkpoint.with_suffix(".sha256"), checkpoint):
        if path.exists():
            with path.open("rb") as file:
                atomic_write(folder / path.name, lambda copy, file=file: shutil.copyfileobj(file, copy))


@contextmanager
def _devices(plan: Plan, out: Path) -> Iterator[None]:
    """Gives the run its GPUs of this machine: those of the first worker's place that nobody holds."""
    if not plan.gpus:
        yield
        return
    for place in range(plan.workers):
        with (out / f".gpu{place}").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                continue
            chosen = [(place * plan.processes + i) % plan.gpus for i in range(plan.processes)]
            os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, chosen))
            yield
            return
    raise ExperimentError(f"{out}: more than {plan.workers} runs at once; start them by spinet sweep alone")


def main() -> None:
    arguments = argparse.ArgumentParser(description="Carries out one run of a sweep.")
    arguments.add_argument("plan", type=Path, help="plan.json, in the sweep's folder")
    arguments.add_argument("run", help="a run in it")
    given = arguments.parse_args()
    try:
        execute(Plan.read(given.plan), given.run, given.plan.parent.resolve() / given.run)
    except (ValueError, RuntimeError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
