"""Runs a plan by Snakemake, here or on Slurm: what is done is kept, what was killed goes on from its checkpoint."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from time import sleep

import torch
from tqdm.auto import tqdm

from spinet.config import PresetName, TrainConfig
from spinet.data import open_dataset
from spinet.experiments.plan import (
    FAILURE,
    MANIFEST,
    NOTEBOOK,
    PLAN,
    RECORD,
    ExperimentError,
    Plan,
    check_folder,
    make_plan,
)
from spinet.experiments.processes import SWEEP, refuse_while_living
from spinet.experiments.settings import Overrides, find_preset, override
from spinet.experiments.tables import SYSTEMS
from spinet.files import atomic_write
from spinet.records import read_record
from spinet.training.preflight import check_data

HERE = Path(__file__).parent
LOG, HOST = "snakemake.log", "host.txt"
TIMEOUT_HOURS = {"tiny": 4.0, "small": 24.0}
"""For one cell of a notebook; the paper's schedules get two weeks."""


def sweep(
    *,
    data: str | Path,
    out: str | Path,
    preset: PresetName = "tiny",
    groups: Sequence[str],
    rows: Sequence[str] = (),
    seeds: Sequence[int] = (0,),
    overrides: Overrides | None = None,
    workers: int | None = None,
    processes: int | None = None,
    slurm: bool = False,
    dry_run: bool = False,
    timeout_hours: float | None = None,
    notebook: Path = NOTEBOOK,
) -> list[Path]:
    """Trains and evaluates every row of some tables with every seed, or what of it is not done yet.

    Args:
        data: a folder in Cityscapes or COCO panoptic layout with the splits train and val.
        out: gets a folder for each run: executed notebook, `record.json`, `log.csv`, `model.safetensors`, checkpoints.
        groups: of `TABLES`; "table1" takes the learning rates from the runs of "rates" that `out` holds.
        rows: names of the groups' rows; without any all are meant.
        overrides: of the preset, for all runs.
        workers: runs at once; by default one for each core, or for each group of `processes` GPUs.
        processes: of each run, by `torchrun`; by default as many of the GPUs as its batch can be shared by.
        slurm: submit the runs as jobs, by the profile in `profiles/slurm`, instead of running them here.
        dry_run: print what would be run.
        timeout_hours: for any one cell of a notebook.
        notebook: carries out a run, with the parameters that `Plan.parameters` gives it.

    Returns:
        The folders of the runs.

    Raises:
        ExperimentError: an earlier call still works in `out`, a folder holds another run, or runs failed.
        ConfigError, DataError: see `make_plan`.
    """
    out = Path(out).resolve()
    check_data(open_dataset(data, "train"), open_dataset(data, "val"))
    gpus = 0 if slurm else torch.cuda.device_count()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    processes = processes or share(override(find_preset(preset), overrides or {}).config.train, gpus)
    workers = workers or max(1, (gpus or cores) // processes)
    plan = make_plan(
        preset=preset,
        data=data,
        groups=groups,
        rows=rows,
        seeds=seeds,
        base=overrides or {},
        records=[read_record(path) for path in sorted(out.glob(f"*/{RECORD}"))] if SYSTEMS.group in groups else [],
        workers=workers,
        gpus=gpus,
        processes=processes,
        notebook=str(notebook),
        timeout_hours=timeout_hours or TIMEOUT_HOURS.get(preset, 14 * 24.0),
    )
    refuse_while_living(SWEEP, out)
    for name, run in plan.runs.items():
        check_folder(out / name, run, plan.config(run))
    _release_lock(out)
    plan.write(out / PLAN)
    atomic_write(out / HOST, socket.gethostname().encode())
    command = _snakemake(out, plan, slurm=slurm)
    environment = {**os.environ, SWEEP: str(out)}
    if not slurm:
        threads = str(max(1, cores // (workers * processes)))
        environment |= {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads, "OMP_WAIT_POLICY": "PASSIVE"}
    if dry_run:
        subprocess.run([*command, "--dry-run"], env=environment, check=True)
    else:
        _run(command, environment, plan, out)
    return [out / name for name in plan.runs]


def share(config: TrainConfig, gpus: int) -> int:
    """The most of some GPUs that a step's batch can be shared by, at the images that each takes at once; at least 1."""
    parts = max(1, config.batch_size // config.images_per_device)
    return max(n for n in range(1, max(gpus, 1) + 1) if parts % n == 0)


def _snakemake(out: Path, plan: Plan, *, slurm: bool) -> list[str]:
    profile = HERE / "profiles" / ("slurm" if slurm else "local")
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(HERE / "Snakefile"), "--directory", str(out)]
    command += ["--workflow-profile", str(profile), "--config", f"plan={out / PLAN}"]
    return [*command, f"gpu={plan.processes}"] if slurm else [*command, "gpu=0", "--cores", str(plan.workers)]


def _release_lock(out: Path) -> None:
    """Removes the lock that a killed Snakemake left; that none of its processes lives here was made sure before."""
    if not any((out / ".snakemake" / "locks").glob("*")):
        return
    host = (out / HOST).read_text() if (out / HOST).exists() else socket.gethostname()
    if host != socket.gethostname():
        raise ExperimentError(
            f"{out}: in use by a sweep on {host}; call it there, or delete {out / '.snakemake' / 'locks'} if that one "
            "is gone"
        )
    command = _snakemake(out, Plan.read(out / PLAN), slurm=False)
    subprocess.run([*command, "--unlock"], check=True, capture_output=True)


def _run(command: list[str], environment: dict[str, str], plan: Plan, out: Path) -> None:
    """Waits for Snakemake, shows how far the runs are, and each failure as it happens."""
    iterations = {name: plan.config(run).train.iterations for name, run in plan.runs.items()}
    for name in plan.runs:
        (out / name / FAILURE).unlink(missing_ok=True)
    told: set[str] = set()
    # what earlier calls did says nothing about the time that is left
    start = _progress(iterations, out)
    with (
        (out / LOG).open("wb") as log,
        tqdm(total=sum(iterations.values()), initial=start, desc=out.name, unit="iteration") as bar,
        subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT) as process,
    ):
        try:
            ended = False
            while not ended:
                ended = process.poll() is not None
                bar.set_postfix_str(f"{len(_done(iterations, out))} of {len(iterations)} runs done", refresh=False)
                bar.update(_progress(iterations, out) - bar.n)
                for name in iterations.keys() - told:
                    if (failure := out / name / FAILURE).exists():
                        told.add(name)
                        bar.write(f"{name} failed. {failure.read_text()}", file=sys.stderr)
                if not ended:
                    sleep(1)
        except KeyboardInterrupt as stop:
            raise type(stop)("the same command goes on, and repeats nothing that is done") from None
        finally:
            process.terminate()
    if missing := iterations.keys() - _done(iterations, out):
        raise ExperimentError(
            f"{len(missing)} of {len(iterations)} runs did not end well: {', '.join(sorted(missing))}; {out / LOG} has "
            "what Snakemake said; the same command goes on, and repeats nothing that is done"
        )


def _done(names: Iterable[str], out: Path) -> set[str]:
    return {name for name in names if (out / name / MANIFEST).exists()}


def _progress(iterations: dict[str, int], out: Path) -> int:
    """Iterations that all runs together have behind them."""
    done = _done(iterations, out)
    return sum(total if name in done else _logged(out / name / "log.csv") for name, total in iterations.items())


def _logged(path: Path) -> int:
    """The last iteration in a log."""
    if not path.exists():
        return 0
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 4096))
        rows = [line.split(b",")[0] for line in file.read().splitlines()]
    return next((int(row) for row in reversed(rows) if row.isdigit()), 0)
