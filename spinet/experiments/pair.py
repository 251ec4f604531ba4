"""§4, Fig. 5 Two networks that differ only in the auxiliary tasks of their training, to compare them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from spinet.config import ConfigError
from spinet.config.overrides import differences, find_preset
from spinet.experiments.sweep import PLAN, ExperimentError, Plan
from spinet.experiments.tables import WITH_TASKS, WITHOUT_TASKS
from spinet.objective.auxiliary import InterClassContour
from spinet.system import Model
from spinet.weights import SHIPPED, SHIPPED_WITHOUT_TASKS, heads_file, load_model, load_objective

TASKS_OFF = {"objective.inter_class_contour": 0.0, "objective.intra_class_triplet": 0.0}


@dataclass(frozen=True)
class Pair:
    """Two networks; `contour` is the contour head that the first one was trained with."""

    with_tasks: Model
    without_tasks: Model
    contour: InterClassContour


@dataclass(frozen=True)
class SweptPairs:
    """The data folder of a sweep, and by seed its run folders with and without the auxiliary tasks."""

    data: Path
    with_tasks: dict[int, Path]
    without_tasks: dict[int, Path]

    @property
    def seed(self) -> int:
        """The seed whose networks are compared."""
        return min(self.with_tasks)

    def load(self) -> Pair:
        """Loads the networks of that seed; raises the errors of `load_pair`."""
        return load_pair(self.with_tasks[self.seed], self.without_tasks[self.seed])


def find_pairs(sweep: str | Path) -> SweptPairs:
    """The runs of a sweep that Fig. 5 compares.

    Raises:
        ExperimentError: the folder has no sweep, or the sweep lacks these rows of Table 3; or one of these runs is not
            done or was changed.
    """
    sweep = Path(sweep)
    if not (sweep / PLAN).is_file():
        raise ExperimentError(f"{sweep / PLAN}: cannot be read, no such file; give the --out folder of a spinet sweep")
    plan = Plan.read(sweep / PLAN)
    found: dict[str, dict[int, Path]] = {row.name: {} for row in (WITH_TASKS, WITHOUT_TASKS)}
    for run in plan.runs.values():
        if run.experiment in found:
            if not plan.is_done(run, sweep / run.name):
                raise ExperimentError(f"{sweep / run.name}: not done; repeat the same spinet sweep to continue it")
            found[run.experiment][run.seed] = sweep / run.name
    if missing := [row for row in (WITH_TASKS, WITHOUT_TASKS) if not found[row.name]]:
        rows = " and ".join(f"{row.title!r}" for row in missing)
        raise ExperimentError(f"{sweep}: has no run of the row {rows} of Table 3; give a sweep with --groups table3")
    return SweptPairs(Path(plan.data), found[WITH_TASKS.name], found[WITHOUT_TASKS.name])


def load_pair(with_tasks: str | Path, without_tasks: str | Path) -> Pair:
    """Loads two trained networks.

    Args:
        with_tasks: folder of a run with both auxiliary tasks.
        without_tasks: folder of a run without them; all other settings except the seed are the same.

    Raises:
        WeightsError: a file is missing, broken, or of another kind.
        ConfigError: the runs differ in other settings, or the first had no contour task.
    """
    with_tasks, without_tasks = Path(with_tasks), Path(without_tasks)
    return _load(with_tasks / "model.safetensors", without_tasks / "model.safetensors")


def load_shipped_pair() -> Pair:
    """Loads the weights in the package, and those that were trained in the same way without the auxiliary tasks."""
    return _load(SHIPPED, SHIPPED_WITHOUT_TASKS)


def _load(with_tasks: Path, without_tasks: Path) -> Pair:
    first, second = load_model(with_tasks), load_model(without_tasks)
    heads = heads_file(with_tasks)
    contour = load_objective(heads).inter
    if contour is None:
        raise ConfigError(f"{heads}: a run without the contour task; give one with both tasks")
    apart = differences(second.config, replace(find_preset("tiny"), config=first.config))
    apart.pop("train.seed", None)
    if apart | TASKS_OFF != apart:
        raise ConfigError(f"{without_tasks}: a run with an auxiliary task; give one with {TASKS_OFF}")
    if others := apart.keys() - TASKS_OFF.keys():
        raise ConfigError(f"{without_tasks}: also differs from {with_tasks} in {', '.join(sorted(others))}")
    if first.categories != second.categories:
        raise ConfigError(f"{without_tasks}: was trained on other classes than {with_tasks}")
    return Pair(first, second, contour)
