"""Group run records that have the same data and settings, except the seed and what the tables vary."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from statistics import fmean
from typing import Any

from spinet.config import PRESETS, Config, Preset, from_dict, to_dict
from spinet.config.overrides import override
from spinet.experiments.tables import FACTORS, SYSTEMS, Row, Table, without_repetition
from spinet.records import flatten

Record = Mapping[str, Any]


@dataclass(frozen=True)
class Campaign:
    """Runs to compare.

    Args:
        base: the settings, without a seed, that the rows of the tables change.
        records: newest first.
        special: what tells it from other campaigns on such data and of this length: settings, initial weights, data.
    """

    base: dict[str, Any]
    records: list[Record]
    special: dict[str, Any] = field(default_factory=dict)

    @property
    def data(self) -> str:
        """The data set's name."""
        return self.records[0]["data"]["name"]

    @property
    def subject(self) -> str:
        """The data set and the length of training."""
        return f"{self.data}, {self.base['train']['iterations']} iterations"

    @property
    def title(self) -> str:
        """The subject and what is special, which tell campaigns apart for a reader."""
        return self.told_apart(self.subject)

    def told_apart(self, name: str) -> str:
        """The name, followed by what is special."""
        return ", ".join([name, *(f"{setting} {value}" for setting, value in self.special.items())])

    @cached_property
    def _by_settings(self) -> dict[Config, dict[int, Record]]:
        """Records by settings and seed; of several with the same seed the newest."""
        found: dict[Config, dict[int, Record]] = {}
        for record in self.records:
            found.setdefault(from_dict(without_seed(record["config"])), {}).setdefault(record["seed"], record)
        return found

    def runs(self, row: Row) -> dict[int, Record]:
        """The row's records by seed; of several with the same seed the newest."""
        start, found = from_dict(self.base), {}
        for data in dict.fromkeys(preset.data for preset in PRESETS.values()):  # records do not name their preset
            config = override(Preset(start, data), row.changes(start)).config
            found |= self._by_settings.get(config, {})
        return dict(sorted(found.items()))

    def rows(self, table: Table) -> dict[str, dict[int, Record]]:
        """The records of a table by title and seed; Table 1's rows are `tuned`.

        Rows have the same settings if the campaign has what one of them changes. The first of them has the runs.
        """
        found: dict[str, dict[int, Record]] = {}
        for row in self.tuned() if table is SYSTEMS else table.rows:
            runs = self.runs(row)
            found[row.title] = {} if runs in found.values() else runs
        return {row.title: found.get(row.title, {}) for row in table.rows}

    def search(self) -> dict[str, dict[float, float]]:
        """PQ by system title and by factor of the learning rate: the mean over the seeds that all its rates have.

        Rates that were not tried, and systems without such a seed, are not in the result.
        """
        found = {}
        for system in without_repetition(SYSTEMS, from_dict(self.base)).rows:
            tried = {factor: runs for factor in FACTORS if (runs := self.runs(replace(system, rate=factor)))}
            seeds = set.intersection(*map(set, tried.values())) if len(tried) > 1 else set()
            if seeds:
                found[system.title] = {
                    factor: fmean(runs[seed]["metrics"]["PQ"] or 0.0 for seed in seeds)
                    for factor, runs in tried.items()
                }
        return found

    def untried(self) -> dict[str, float]:
        """By system title, a factor of the learning rate beside the best one that was not tried."""
        found = {}
        for title, scores in self.search().items():
            place = FACTORS.index(max(scores, key=scores.__getitem__))
            beside = [factor for factor in FACTORS[max(0, place - 1) : place + 2] if factor not in scores]
            if beside:
                found[title] = beside[0]
        return found

    def tuned(self) -> list[Row]:
        """Rows of the systems, each at its learning rate with the highest PQ; only systems with a search."""
        found = self.search()
        return [
            replace(row, rate=max(scores, key=scores.__getitem__))
            for row in SYSTEMS.rows
            if (scores := found.get(row.title))
        ]


def find_campaigns(records: Iterable[Record]) -> list[Campaign]:
    """Groups records into campaigns. Records of single runs, which have no `base`, are ignored."""
    groups: dict[str, tuple[dict[str, Any], list[Record]]] = {}
    for record in sorted(records, key=lambda record: str(record["created"]), reverse=True):
        if record.get("base"):
            init = (record.get("init") or {}).get("sha256")
            base = without_seed(to_dict(from_dict(record["base"])))  # with the settings that are newer than the record
            key = json.dumps([record["data"]["fingerprint"], init, base], sort_keys=True)
            groups.setdefault(key, (base, []))[1].append(record)
    found = [Campaign(base, group) for base, group in groups.values()]
    found = [replace(campaign, special=_special(campaign, found)) for campaign in found]
    return sorted(found, key=lambda campaign: (campaign.data, -len(campaign.records)))


def newest(campaigns: Iterable[Campaign]) -> dict[str, Campaign]:
    """Of each subject the campaign with the newest record, by subject."""
    oldest_first = sorted(campaigns, key=lambda campaign: str(campaign.records[0]["created"]))
    return dict(sorted({campaign.subject: campaign for campaign in oldest_first}.items()))


def _special(campaign: Campaign, campaigns: Iterable[Campaign]) -> dict[str, Any]:
    """Few settings, initial weights or data that tell a campaign from the others with the same title.

    Each is the first of those that tell it from most of the rest.
    """

    def facts(one: Campaign) -> dict[str, Any]:
        record = one.records[0]
        init = record.get("init")
        weights = f"{init['file']} ({init['sha256'][:8]})" if init else "no other run"
        return {**flatten(one.base), "from": weights, "data": record["data"]["fingerprint"][:8]}

    own, found = facts(campaign), {}
    alike = [facts(other) for other in campaigns if other.title == campaign.title and other is not campaign]
    while alike:
        differing = {name: sum(value != other.get(name) for other in alike) for name, value in own.items()}
        name = max(differing, key=differing.__getitem__)
        if not differing[name]:  # nothing tells the rest apart
            break
        found[name] = own[name]
        alike = [other for other in alike if other.get(name) == own[name]]
    return found


def without_seed(config: Mapping[str, Any]) -> dict[str, Any]:
    """Settings without the seed, to compare runs."""
    return {**config, "train": {name: value for name, value in config["train"].items() if name != "seed"}}
