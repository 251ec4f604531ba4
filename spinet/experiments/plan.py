"""Which runs a sweep is made of, the folder of each, and what marks one as done."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from spinet.config import Config, ConfigError, Preset, to_dict
from spinet.data import find_splits, open_dataset
from spinet.experiments.campaigns import find_campaigns, without_seed
from spinet.experiments.settings import Overrides, find_preset, override
from spinet.experiments.tables import RATES, SYSTEMS, TABLES, Row, Table, find_tables
from spinet.files import SEAL, is_intact, write_json
from spinet.records import RecordError, fingerprint

NOTEBOOK = Path(__file__).resolve().parents[2] / "notebooks" / "52_training.ipynb"
PLAN, MANIFEST, RECORD, FAILURE = "plan.json", "manifest.json", "record.json", "failure.txt"


class ExperimentError(RuntimeError):
    """A run or a sweep that cannot start, cannot go on, or did not end well."""


@dataclass(frozen=True)
class Run:
    """One experiment with one seed. `digest` is the sha256 of its settings and its data: its identity."""

    experiment: str
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
    """A sweep: everything that its runs have in common, and the runs by name."""

    preset: str
    data: str
    base: dict[str, Any]  # overrides of the preset
    runs: dict[str, Run]
    notebook: str = str(NOTEBOOK)
    processes: int = 1  # of each run
    workers: int = 1  # runs at once on this machine
    gpus: int = 0  # that they share; 0 where a scheduler hands them out
    timeout_hours: float = 24.0  # for any one cell
    feature_images: int = 50  # validation images over which the Panoptic-Feature is measured

    def base_config(self, run: Run) -> Config:
        """What the run's experiment starts from."""
        return self._start(run).config

    def config(self, run: Run) -> Config:
        """The run's settings."""
        return override(self._start(run), run.overrides).config

    def _start(self, run: Run) -> Preset:
        return override(find_preset(self.preset), {**self.base, "train.seed": run.seed})

    def parameters(self, run: Run, out: Path) -> dict[str, Any]:
        """Of the notebook that carries it out."""
        return {
            "preset": self.preset,
            "data": self.data,
            "out": str(out),
            "experiment": run.experiment,
            "seed": run.seed,
            "base": self.base,
            "overrides": run.overrides,
            "processes": self.processes,
            "feature_images": self.feature_images,
        }

    def find(self, name: str) -> Run:
        """Raises `ExperimentError` if there is no such run."""
        if name not in self.runs:
            raise ExperimentError(f"the plan has no run {name!r}; it has {', '.join(self.runs)}")
        return self.runs[name]

    def write(self, path: Path) -> None:
        write_json(asdict(self), path, seal=True)

    @classmethod
    def read(cls, path: str | Path) -> Plan:
        """Raises `ExperimentError` if the file is no plan."""
        try:
            content = json.loads(Path(path).read_bytes())
            if not is_intact(content):
                raise ValueError("damaged, or edited: its sha256 is another")
            content.pop(SEAL, None)
            return cls(**{**content, "runs": {name: Run(**run) for name, run in content["runs"].items()}})
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise ExperimentError(f"{path}: no plan of a sweep ({error}); call spinet sweep again") from None


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
    tables = _only(find_tables(tuple(groups)), rows)
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
                # how the result is read out is no part of how it came about
                training = replace(config, inference=start.config.inference)
                source = trained.setdefault(training, run.name)
                runs.setdefault(run.name, run if source == run.name else replace(run, source=source))
    return Plan(preset, str(Path(data).resolve()), dict(base), runs, **options)


def _tuned(table: Table, start: Config, data: str | Path, records: Iterable[Mapping[str, Any]]) -> Table:
    """Rows of `SYSTEMS` with the learning rates that the records of the same data and settings show to be best."""
    places = find_splits(data)
    digest = fingerprint(places[split].annotations for split in ("train", "val"))
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


def _only(tables: list[Table], names: Sequence[str]) -> list[Table]:
    """The tables with the rows of these names alone, or with all if there is no name."""
    known = [row.name for table in tables for row in table.rows]
    if unknown := [name for name in names if name not in known]:
        raise ConfigError(
            f"no row {unknown[0]!r} in {', '.join(t.group for t in tables)}; there are {', '.join(known)}"
        )

    def kept(row: Row) -> bool:
        return not names or row.name in names

    return [replace(table, rows=tuple(filter(kept, table.rows))) for table in tables]


def file_digest(path: Path) -> str:
    """sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_manifest(folder: Path, run: Run, results: Iterable[str], facts: dict[str, Any]) -> None:
    """Marks a run as done: its identity, and the sha256 of each of its results (names of files in its folder)."""
    files = {name: file_digest(folder / name) for name in results}
    finished = datetime.now(UTC).isoformat(timespec="seconds")
    content = {"run": run.name, "digest": run.digest, "files": files, "finished": finished, **facts}
    write_json(content, folder / MANIFEST, seal=True)


def check_folder(folder: Path, run: Run, config: Config) -> bool:
    """Whether the run is done: it has a manifest, which is true.

    Raises:
        ExperimentError: the folder holds another run, or a result that has changed since it was made.
    """
    if (record := folder / RECORD).exists():
        found = _read(record).get("config")
        if found != to_dict(config):
            raise ExperimentError(
                f"{record}: is of other settings than the experiment {run.experiment!r} with seed {run.seed}; nothing "
                "was overwritten: move the folder away, or choose another --out"
            )
    if not (folder / MANIFEST).exists():
        return False
    manifest = _read(folder / MANIFEST)
    if manifest.get("digest") != run.digest:
        raise ExperimentError(f"{folder / MANIFEST}: is of another run; move the folder away, or choose another --out")
    for name, digest in manifest["files"].items():
        if not (folder / name).is_file() or file_digest(folder / name) != digest:
            raise ExperimentError(
                f"{folder / name}: missing or changed since the run was done; put it back, or delete "
                f"{folder / MANIFEST} to have the run evaluated again"
            )
    return True


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except ValueError as error:
        raise RecordError(f"{path}: not JSON ({error}); delete it to repeat the run") from None
    if not isinstance(content, dict):
        raise RecordError(f"{path}: holds {type(content).__name__}, not a dictionary; delete it to repeat the run")
    if not is_intact(content):
        raise RecordError(f"{path}: damaged, or edited (its sha256 is another); delete it to repeat the run")
    return content
