"""Records that belong together: the same data and the same settings, but for what the tables vary and the seed."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from spinet.experiments.tables import Row, Table

Record = Mapping[str, Any]


@dataclass(frozen=True)
class Campaign:
    """`base` are the settings, without a seed, that the rows of the tables change; `records` are the latest first."""

    base: dict[str, Any]
    records: list[Record]

    @property
    def data(self) -> str:
        """The data set's name."""
        return self.records[0]["data"]["name"]

    def runs(self, row: Row) -> dict[int, Record]:
        """The row's records by seed; of several with one seed the latest."""
        wanted = copy.deepcopy(self.base)
        for name, value in row.overrides.items():
            section, field = name.split(".")
            wanted[section][field] = value
        found = [record for record in self.records if without_seed(record["config"]) == wanted]
        return {record["seed"]: record for record in reversed(found)}

    def rows(self, table: Table) -> dict[str, dict[int, Record]]:
        """Of a table, by title."""
        return {row.title: dict(sorted(self.runs(row).items())) for row in table.rows}


def find_campaigns(records: Iterable[Record]) -> list[Campaign]:
    """The campaigns among records of sweeps; records of single runs, which have no `base`, are left out."""
    groups: dict[str, list[Record]] = {}
    for record in sorted(records, key=lambda record: str(record["created"]), reverse=True):
        if "base" in record:
            key = json.dumps([record["data"]["fingerprint"], without_seed(record["base"])], sort_keys=True)
            groups.setdefault(key, []).append(record)
    found = [Campaign(without_seed(group[0]["base"]), group) for group in groups.values()]
    return sorted(found, key=lambda campaign: (campaign.data, -len(campaign.records)))


def without_seed(config: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as they are compared between runs."""
    return {**config, "train": {name: value for name, value in config["train"].items() if name != "seed"}}
