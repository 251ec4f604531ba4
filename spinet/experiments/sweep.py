"""Plan the runs of a sweep and execute them: Snakemake starts each by `run`, on this machine or on Slurm."""

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
from spinet.data import Categories, find_splits, open_dataset
from spinet.experiments.campaigns import find_campaigns, without_seed
from spinet.experiments.tables import RATES, SYSTEMS, TABLES, Table, choose_rows, find_tables, without_repetition
from spinet.files import owned, read_json, write_json
from spinet.records import fingerprint, read_record
from spinet.training.launch import end_with_parent
from spinet.training.outcome import RECORD
from spinet.training.preflight import check_data, check_network
from spinet.weights import hash_of, start_from

HERE = Path(__file__).parent
NOTEBOOK = HERE.parents[1] / "notebooks" / "52_training.ipynb"
"""The notebook of a run. Its executed copy in the run's folder marks the run as done."""

PLAN, FAILURE, LOG, AT_WORK = "plan.json", "failure.txt", "snakemake.log", ".at_work"

TIMEOUT_HOURS = {"tiny": 4.0, "small": 24.0}
"""Time limit for one cell of a notebook; the paper's schedules get two weeks."""


class ExperimentError(RuntimeError):
    """A run or a sweep cannot start, cannot continue, or failed."""


@dataclass(frozen=True)
class Run:
    """A row with one seed. `digest`, the sha256 of its settings, data and initial weights, identifies it."""

    experiment: str  # the row's name
    seed: int
    overrides: dict[str, Any]
    digest: str
    source: str | None = None  # the run with the same training, if this run differs only in inference

    @property
    def name(self) -> str:
        """Name of its folder."""
        return f"{self.experiment}-s{self.seed}-{self.digest[:8]}"


@dataclass(frozen=True)
class Plan:
    """A sweep: the common settings of its runs, and the runs by name."""

    preset: str
    data: str
    base: dict[str, Any]  # overrides of the preset
    runs: dict[str, Run]
    init: str | None = None  # initial weights of all runs
    notebook: str = str(NOTEBOOK)
    processes: int = 1  # per run
    workers: int = 1  # runs at once on this machine
    gpus: int = 0  # shared by the workers; 0 if a scheduler assigns them
    timeout_hours: float = 24.0  # per cell

    def config(self, run: Run) -> Config:
        """The run's settings."""
        start = override(start_from(find_preset(self.preset), self.init), {**self.base, "train.seed": run.seed})
        return override(start, run.overrides).config  # a system's defaults depend on earlier settings, such as the crop

    def parameters(self, run: Run, folder: Path) -> dict[str, Any]:
        """Parameters of the notebook."""
        return {
            "preset": self.preset,
            "data": self.data,
            "out": str(folder),
            "experiment": run.experiment,
            "seed": run.seed,
            "init": self.init,
            "base": self.base,
            "overrides": run.overrides,
            "processes": self.processes,
        }

    def is_done(self, run: Run, folder: Path) -> bool:
        """Whether the folder has the finished run.

        Raises:
            ExperimentError: it has another run.
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
        remedy = "repeat spinet sweep"
        content = read_json(path, error=ExperimentError, remedy=remedy)
        try:
            known = {field.name: content[field.name] for field in fields(cls)}
            return cls(**{**known, "runs": {name: Run(**run) for name, run in content["runs"].items()}})
        except (TypeError, KeyError) as error:
            raise ExperimentError(f"{path}: not the plan of a sweep ({error}); {remedy}") from None


def sweep(
    *,
    data: str | Path,
    out: str | Path,
    preset: PresetName = "tiny",
    groups: Sequence[str],
    rows: Sequence[str] = (),
    seeds: Sequence[int] = (0,),
    init: str | Path | None = None,
    overrides: Overrides | None = None,
    workers: int | None = None,
    processes: int | None = None,
    slurm: bool = False,
    dry_run: bool = False,
    timeout_hours: float | None = None,
    notebook: str | Path = NOTEBOOK,
) -> list[Path]:
    """Trains and evaluates every row of some tables with every seed; skips finished runs.

    Args:
        data: a folder in Cityscapes or COCO panoptic layout with the splits train and val.
        out: gets a folder for each run: executed notebook, `record.json`, `log.csv`, `model.safetensors`, checkpoints.
        groups: groups of `TABLES`; "table1" takes its learning rates from the runs of "rates" in `out`.
        rows: names of rows of the groups; all rows if empty.
        init: initial weights of all runs, a model.safetensors; its network replaces that of the preset.
        overrides: overrides of the preset, for all runs.
        workers: runs at once; by default one per core, or one per `processes` GPUs.
        processes: processes per run, by `torchrun`; by default as many GPUs as can share the batch.
        slurm: submit the runs as jobs, by the profile in `profiles/slurm`, instead of running them here.
        dry_run: only print which runs would start.
        timeout_hours: time limit for each cell of a notebook.
        notebook: the notebook of a run; it gets the parameters of `Plan.parameters`.

    Returns:
        The folders of the runs.

    Raises:
        ExperimentError: a folder has another run, or runs failed.
        LockError: an earlier call still runs in `out`.
        ConfigError: see `make_plan` and `check_networks`.
        DataError, WeightsError: see `make_plan`.
    """
    out, notebook = Path(out).resolve(), Path(notebook)
    if not notebook.exists():
        raise ExperimentError(f"{notebook}: no such file; sweeps run from a checkout of the project")
    gpus = 0 if slurm else torch.cuda.device_count()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    processes = processes or share(override(start_from(find_preset(preset), init), overrides or {}).config.train, gpus)
    workers = workers or max(1, (gpus or cores) // processes)
    plan = make_plan(
        preset=preset,
        data=data,
        groups=groups,
        rows=rows,
        seeds=seeds,
        init=init,
        base=overrides or {},
        records=[read_record(path) for path in sorted(out.glob(f"*/{RECORD}"))] if SYSTEMS.group in groups else [],
        workers=workers,
        gpus=gpus,
        processes=processes,
        notebook=str(notebook),
        timeout_hours=timeout_hours or TIMEOUT_HOURS.get(preset, 14 * 24.0),
    )
    train_set = open_dataset(data, "train")
    check_networks(plan, train_set.categories)
    check_data(train_set, open_dataset(data, "val"))
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
            with owned(out / name / AT_WORK):  # owned by a run that outlived its sweep
                if not plan.is_done(run, out / name) and not dry_run:
                    (out / name / notebook.name).unlink(missing_ok=True)
        write_json(asdict(plan), out / PLAN)
        if dry_run:
            subprocess.run([*command, "--dry-run"], env=environment, check=True)
        else:
            _carry_out(command, environment, plan, out)
    return [out / name for name in plan.runs]


def share(config: TrainConfig, gpus: int) -> int:
    """The largest number of GPUs that can share a step's batch evenly, with `images_per_device` each; at least 1."""
    parts = max(1, config.batch_size // config.images_per_device)
    return max(n for n in range(1, max(gpus, 1) + 1) if parts % n == 0)


def make_plan(
    *,
    preset: str,
    data: str | Path,
    groups: Sequence[str],
    seeds: Sequence[int],
    base: Overrides,
    init: str | Path | None = None,
    rows: Sequence[str] = (),
    records: Iterable[Mapping[str, Any]] = (),
    **options: Any,
) -> Plan:
    """The runs of some tables on a data set; rows with equal settings are one run.

    Args:
        preset: source of the settings.
        data: a folder in Cityscapes or COCO panoptic layout with the splits train and val.
        groups: groups of `TABLES`.
        seeds: every row runs with each of them.
        base: overrides of the preset, for all runs.
        init: initial weights of all runs, a model.safetensors; its network replaces that of the preset.
        rows: names of rows of the groups; all rows if empty.
        records: records of finished runs, including those of `RATES` if `SYSTEMS` is one of the groups.
        options: the other fields of `Plan`.

    Raises:
        ConfigError: a preset, group, row, field or value does not exist; two rows of a table are the same run; the rows
            are SPINet itself; or the records lack a system's search of the learning rate.
        DataError: the data cannot be read.
        WeightsError: `init` is not a trained network.
    """
    if not seeds:
        raise ConfigError("no seed is named; give --seeds 0, or 0 1 2 to tell a difference from noise")
    if "train.seed" in base:
        raise ConfigError("train.seed is not an override of a sweep; give --seeds")
    start = override(start_from(find_preset(preset), init), base)
    tables = [without_repetition(table, start.config) for table in choose_rows(find_tables(tuple(groups)), rows)]
    if not any(table.rows for table in tables):
        raise ConfigError(
            f"{' '.join(rows)}: these settings have no parts beyond the paper, so this is SPINet itself; name its rows"
        )
    initial = hash_of(init) if init else None
    alike = [record for record in records if (record.get("init") or {}).get("sha256") == initial]
    tables = [_tuned(table, start.config, data, alike) if table.group == SYSTEMS.group else table for table in tables]
    names: dict[Config, str] = {}  # name of the first row with these settings, the same for every choice of groups
    for table in TABLES.values():
        for row in table.rows:
            names.setdefault(override(start, row.changes(start.config)).config, row.name)
    inputs = [open_dataset(data, split).fingerprint for split in ("train", "val")]
    inputs += [initial] if initial else []
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
                digest = hashlib.sha256(json.dumps([to_dict(config), *inputs]).encode()).hexdigest()
                run = Run(name, seed, changes, digest)
                # train runs that differ only in inference once
                source = trained.setdefault(replace(config, inference=start.config.inference), run.name)
                runs.setdefault(run.name, run if source == run.name else replace(run, source=source))
    return Plan(
        preset, str(Path(data).resolve()), dict(base), runs, str(Path(init).resolve()) if init else None, **options
    )


def check_networks(plan: Plan, categories: Categories) -> None:
    """Builds each network of a plan once, see `check_network`.

    Raises:
        ConfigError: the settings of a row do not fit each other.
    """
    configs = {run.experiment: plan.config(run) for run in plan.runs.values()}
    networks = {(config.model, config.baseline): row for row, config in configs.items()}
    for row in networks.values():
        try:
            check_network(configs[row], categories)
        except ConfigError as error:
            raise ConfigError(f"{row}: {error}; change --overrides, or name other --rows") from None


def _tuned(table: Table, start: Config, data: str | Path, records: Iterable[Mapping[str, Any]]) -> Table:
    """Rows of `SYSTEMS`, each at its learning rate with the highest PQ in the records of the same data and settings."""
    splits = find_splits(data)
    digest = fingerprint(splits[split].annotations for split in ("train", "val"))
    base = without_seed(to_dict(start))
    finished = find_campaigns(record for record in records if record["status"] == "finished")
    alike = [c for c in finished if c.base == base and c.records[0]["data"]["fingerprint"] == digest]
    tuned = {row.name: row for row in alike[0].tuned()} if alike else {}
    further = alike[0].untried() if alike else {}
    if again := [f"{row.name}-rate-{further[row.title]:g}" for row in table.rows if row.title in further]:
        raise ConfigError(
            f"{SYSTEMS.group}: the search of the learning rate does not end yet; run --groups {RATES.group} --rows "
            f"{' '.join(again)} --seeds 0 with the same data, settings and --out first"
        )
    if missing := [row.title for row in table.rows if row.name not in tuned]:
        raise ConfigError(
            f"{SYSTEMS.group}: no search of the learning rate for {', '.join(missing)}; run --groups {RATES.group} "
            "--seeds 0 with the same data, settings and --out first"
        )
    return replace(table, rows=tuple(tuned[row.name] for row in table.rows))


def _carry_out(command: list[str], environment: dict[str, str], plan: Plan, out: Path) -> None:
    """Runs Snakemake until it ends. Shows the progress of the runs and each failure."""
    iterations = {name: plan.config(run).train.iterations for name, run in plan.runs.items()}
    marks = {name: out / name / Path(plan.notebook).name for name in plan.runs}
    failures = {name: out / name / FAILURE for name in plan.runs}
    for failure in failures.values():
        failure.unlink(missing_ok=True)

    def progress() -> int:
        return sum(n if marks[name].exists() else last_iteration(out / name) for name, n in iterations.items())

    with (
        (out / LOG).open("wb") as log,
        # earlier calls must not count in the estimate of the remaining time
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
            raise type(stop)("repeat the same command to continue; finished runs are kept") from None
        finally:
            process.terminate()
    if missing := [name for name, mark in marks.items() if not mark.exists()]:
        raise ExperimentError(
            f"{len(missing)} of {len(marks)} runs failed: {', '.join(sorted(missing))}; {out / LOG} has Snakemake's "
            "messages; repeat the same command to continue; finished runs are kept"
        )


def last_iteration(folder: Path) -> int:
    """The last iteration in the run's log; 0 without a log."""
    path = folder / "log.csv"
    if not path.exists():
        return 0
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 4096))
        rows = [line.split(b",")[0] for line in file.read().splitlines()]
    return next((int(row) for row in reversed(rows) if row.isdigit()), 0)
