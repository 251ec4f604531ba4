"""From rows to runs, and what is done with them: Snakemake carries out a plan, here or on Slurm, each run by `run`."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from time import sleep
from typing import Any

import torch
from tqdm.auto import tqdm

from spinet.config import Config, ConfigError, PresetName, TrainConfig, to_dict
from spinet.config.overrides import Overrides, find_preset, override
from spinet.data import find_splits, open_dataset
from spinet.experiments.campaigns import find_campaigns, without_seed
from spinet.experiments.tables import RATES, SYSTEMS, TABLES, Table, choose_rows, find_tables
from spinet.files import owned, write_json
from spinet.records import fingerprint, read_record
from spinet.training.launch import end_with_parent
from spinet.training.outcome import RECORD
from spinet.training.preflight import check_data

HERE = Path(__file__).parent
NOTEBOOK = HERE.parents[1] / "notebooks" / "52_training.ipynb"
"""Carries out a run. Its executed copy in the run's folder says that the run is done."""

PLAN, FAILURE, LOG, AT_WORK = "plan.json", "failure.txt", "snakemake.log", ".at_work"

TIMEOUT_HOURS = {"tiny": 4.0, "small": 24.0}
"""For one cell of a notebook; the paper's schedules get two weeks."""


class ExperimentError(RuntimeError):
    """A run or a sweep that cannot start, cannot go on, or failed."""


@dataclass(frozen=True)
class Run:
    """A row with one seed. `digest` is the sha256 of its settings and its data: its identity."""

    experiment: str  # the row's name
    seed: int
    overrides: dict[str, Any]
    digest: str
    source: str | None = None  # the run with the same training, if this one differs in inference alone

    @property
    def name(self) -> str:
        """Of its folder."""
        return f"{self.experiment}-s{self.seed}-{self.digest[:8]}"


@dataclass(frozen=True)
class Plan:
    """A sweep: what its runs have in common, and the runs by name."""

    preset: str
    data: str
    base: dict[str, Any]  # overrides of the preset
    runs: dict[str, Run]
    notebook: str = str(NOTEBOOK)
    processes: int = 1  # of each run
    workers: int = 1  # runs at once on this machine
    gpus: int = 0  # that they share; 0 if a scheduler hands them out
    timeout_hours: float = 24.0  # for one cell

    def config(self, run: Run) -> Config:
        """The run's settings."""
        start = override(find_preset(self.preset), {**self.base, "train.seed": run.seed})
        return override(
            start, run.overrides
        ).config  # a system's own settings depend on those before it, such as the crop

    def parameters(self, run: Run, folder: Path) -> dict[str, Any]:
        """Of the notebook."""
        return {
            "preset": self.preset,
            "data": self.data,
            "out": str(folder),
            "experiment": run.experiment,
            "seed": run.seed,
            "base": self.base,
            "overrides": run.overrides,
            "processes": self.processes,
        }

    def is_done(self, run: Run, folder: Path) -> bool:
        """Whether the folder holds the finished run.

        Raises:
            ExperimentError: it holds another run.
            RecordError: its record is damaged.
        """
        record = read_record(folder / RECORD) if (folder / RECORD).exists() else {}
        if record and record["config"] != to_dict(self.config(run)):
            raise ExperimentError(
                f"{folder / RECORD}: has other settings than the experiment {run.experiment!r} with seed {run.seed}; "
                "nothing was overwritten: move the folder away, or choose another --out"
            )
        return record.get("status") == "finished" and (folder / Path(self.notebook).name).exists()

    @classmethod
    def read(cls, path: str | Path) -> Plan:
        """Raises `ExperimentError` if the file is not a plan."""
        try:
            content = json.loads(Path(path).read_bytes())
            known = {field.name: content[field.name] for field in fields(cls)}
            return cls(**{**known, "runs": {name: Run(**run) for name, run in content["runs"].items()}})
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise ExperimentError(f"{path}: not the plan of a sweep ({error}); call spinet sweep again") from None


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
    notebook: str | Path = NOTEBOOK,
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
        ExperimentError: a folder holds another run, or runs failed.
        LockError: an earlier call still works in `out`.
        ConfigError, DataError: see `make_plan`.
    """
    out, notebook = Path(out).resolve(), Path(notebook)
    if not notebook.exists():
        raise ExperimentError(f"{notebook}: no such file; sweeps run from a checkout of the project")
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
    profile = HERE / "profiles" / ("slurm" if slurm else "local")
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(HERE / "Snakefile"), "--directory", str(out)]
    command += ["--workflow-profile", str(profile), "--config", f"plan={out / PLAN}", f"gpu={slurm * processes}"]
    environment = dict(os.environ)
    if not slurm:
        command += ["--cores", str(workers)]
        threads = str(max(1, cores // (workers * processes)))
        environment |= {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads, "OMP_WAIT_POLICY": "PASSIVE"}
    with owned(out):
        for name, run in plan.runs.items():
            with owned(out / name / AT_WORK):  # a driver that outlived its sweep owns it
                if not plan.is_done(run, out / name) and not dry_run:
                    (out / name / notebook.name).unlink(missing_ok=True)
        write_json(asdict(plan), out / PLAN)
        if dry_run:
            subprocess.run([*command, "--dry-run"], env=environment, check=True)
        else:
            _carry_out(command, environment, plan, out)
    return [out / name for name in plan.runs]


def share(config: TrainConfig, gpus: int) -> int:
    """The most of some GPUs that a step's batch can be shared by, at the images that each takes at once; at least 1."""
    parts = max(1, config.batch_size // config.images_per_device)
    return max(n for n in range(1, max(gpus, 1) + 1) if parts % n == 0)


def make_plan(
    *,
    preset: str,
    data: str | Path,
    groups: Sequence[str],
    seeds: Sequence[int],
    base: Overrides,
    rows: Sequence[str] = (),
    records: Iterable[Mapping[str, Any]] = (),
    **options: Any,
) -> Plan:
    """The runs of some tables on a data set; rows with equal settings are one run.

    Args:
        preset: where the settings start from.
        data: a folder in Cityscapes or COCO panoptic layout with the splits train and val.
        groups: of `TABLES`.
        seeds: every experiment is run with each of them.
        base: overrides of the preset, for all runs.
        rows: names of the groups' rows; without any all are meant.
        records: of finished runs, among them those of `RATES` if `SYSTEMS` is one of the groups.
        options: the other fields of `Plan`.

    Raises:
        ConfigError: a preset, group, row, field or value that does not exist; two rows of a table that are the same
            run; the records lack a system's search.
        DataError: the data cannot be read.
    """
    if not seeds:
        raise ConfigError("no seed is named; give --seeds 0, or 0 1 2 to tell a difference from noise")
    if "train.seed" in base:
        raise ConfigError("train.seed is not an override of a sweep; give --seeds")
    start = override(find_preset(preset), base)
    tables = choose_rows(find_tables(tuple(groups)), rows)
    tables = [_tuned(table, start.config, data, records) if table.group == SYSTEMS.group else table for table in tables]
    names: dict[Config, str] = {}  # of the first row with these settings, so that every choice of groups agrees on it
    for table in TABLES.values():
        for row in table.rows:
            names.setdefault(override(start, row.changes(start.config)).config, row.name)
    fingerprints = [open_dataset(data, split).fingerprint for split in ("train", "val")]
    runs: dict[str, Run] = {}
    trained: dict[Config, str] = {}
    for seed in seeds:
        seeded = override(start, {"train.seed": seed})
        for table in tables:
            seen: dict[Config, str] = {}
            for row in table.rows:
                changes = row.changes(start.config)
                config = override(seeded, changes).config
                if config in seen:
                    raise ConfigError(
                        f"{table.group}: the rows {seen[config]!r} and {row.title!r} are the same run with these "
                        "settings; leave the group out, or change the overrides or the preset"
                    )
                seen[config] = row.title
                name = names[override(start, changes).config]
                digest = hashlib.sha256(json.dumps([to_dict(config), *fingerprints]).encode()).hexdigest()
                run = Run(name, seed, changes, digest)
                # runs that differ in inference alone are trained once
                source = trained.setdefault(replace(config, inference=start.config.inference), run.name)
                runs.setdefault(run.name, run if source == run.name else replace(run, source=source))
    return Plan(preset, str(Path(data).resolve()), dict(base), runs, **options)


def _tuned(table: Table, start: Config, data: str | Path, records: Iterable[Mapping[str, Any]]) -> Table:
    """Rows of `SYSTEMS`, each at the learning rate with the highest PQ in the records of the same data and settings."""
    splits = find_splits(data)
    digest = fingerprint(splits[split].annotations for split in ("train", "val"))
    base = without_seed(to_dict(start))
    finished = find_campaigns(record for record in records if record["status"] == "finished")
    alike = [c for c in finished if c.base == base and c.records[0]["data"]["fingerprint"] == digest]
    tuned = {row.name: row for row in alike[0].tuned()} if alike else {}
    if missing := [row.title for row in table.rows if row.name not in tuned]:
        raise ConfigError(
            f"{SYSTEMS.group}: no search of the learning rate for {', '.join(missing)}; run --groups {RATES.group} "
            "--seeds 0 with the same data, settings and --out first"
        )
    return replace(table, rows=tuple(tuned[row.name] for row in table.rows))


def _carry_out(command: list[str], environment: dict[str, str], plan: Plan, out: Path) -> None:
    """Waits for Snakemake. Shows how far the runs are, and each failure as it happens."""
    iterations = {name: plan.config(run).train.iterations for name, run in plan.runs.items()}
    marks = {name: out / name / Path(plan.notebook).name for name in plan.runs}
    failures = {name: out / name / FAILURE for name in plan.runs}
    for failure in failures.values():
        failure.unlink(missing_ok=True)

    def progress() -> int:
        return sum(n if marks[name].exists() else last_iteration(out / name) for name, n in iterations.items())

    with (
        (out / LOG).open("wb") as log,
        # what earlier calls did says nothing about the time that is left
        tqdm(total=sum(iterations.values()), initial=progress(), desc=out.name, unit="iteration") as bar,
        subprocess.Popen(
            command, env=environment, stdout=log, stderr=subprocess.STDOUT, preexec_fn=end_with_parent
        ) as process,
    ):
        try:
            ended = False
            while not ended:
                ended = process.poll() is not None
                done = sum(mark.exists() for mark in marks.values())
                bar.set_postfix_str(f"{done} of {len(marks)} runs done", refresh=False)
                bar.update(progress() - bar.n)
                for name in [name for name, failure in failures.items() if failure.exists()]:
                    bar.write(f"{name} failed. {failures.pop(name).read_text()}", file=sys.stderr)
                if not ended:
                    sleep(1)
        except KeyboardInterrupt as stop:
            raise type(stop)("the same command goes on, and repeats nothing that is done") from None
        finally:
            process.terminate()
    if missing := [name for name, mark in marks.items() if not mark.exists()]:
        raise ExperimentError(
            f"{len(missing)} of {len(marks)} runs failed: {', '.join(sorted(missing))}; {out / LOG} has Snakemake's "
            "messages; the same command goes on, and repeats nothing that is done"
        )


def last_iteration(folder: Path) -> int:
    """The last one in the run's log; 0 without a log."""
    path = folder / "log.csv"
    if not path.exists():
        return 0
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 4096))
        rows = [line.split(b",")[0] for line in file.read().splitlines()]
    return next((int(row) for row in reversed(rows) if row.isdigit()), 0)
