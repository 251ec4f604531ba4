"""Tables and an HTML page of the reproduction, made only from run records."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from spinet.config import ConfigError
from spinet.experiments.campaigns import Campaign, find_campaigns
from spinet.files import atomic_write
from spinet.records import RecordError, find_records
from spinet.report.curves import curve_sections
from spinet.report.effects import effect_sections
from spinet.report.page import page
from spinet.report.power import power_sections
from spinet.report.single import is_single, results_table
from spinet.report.tables import table_sections
from spinet.report.verdicts import verdict_section

__all__ = ["Campaign", "find_campaigns", "read_runs", "report", "table_sections"]

HEAD = """# Tables

`spinet report` made this file from the run records that tables.json lists. The paper's values are in separate columns;
their heading names the data. Ours are means ± standard deviations over n runs that differ only in the seed. Differences
are to the first row with runs, for equal seeds. p is that of a paired t-test over the seeds, not corrected for the
number of rows.
"""


def report(folders: Sequence[str | Path], out: str | Path, *, broken: list[RecordError] | None = None) -> list[Path]:
    """Writes `tables.md`, `tables.json` with the names of its records, and the self-contained page `report.html`.

    Args:
        folders: folders of records, read with their subfolders; only finished records enter a table.
        out: output folder.
        broken: if given, the errors of broken records are added to it, and these records are skipped.

    Raises:
        ConfigError: there is no finished record.
        RecordError: a record is broken, and `broken` is None.
    """
    out = Path(out)
    found = read_runs(folders, broken=broken)
    records = list(found.values())
    finished = [record for record in records if record["status"] == "finished"]
    if not finished:
        raise ConfigError(f"{', '.join(map(str, folders))}: no finished run record there; spinet sweep makes them")
    campaigns = find_campaigns(finished)
    sections = [section for campaign in campaigns if (section := verdict_section(campaign))]
    sections += [*power_sections(campaigns), *effect_sections(campaigns), *curve_sections(campaigns)]
    sections += [section for campaign in campaigns for section in table_sections(campaign)]
    single = results_table(filter(is_single, finished))
    text = [HEAD, *(section.markdown() for section in sections)]
    if single.rows:
        text.append(f"## Single runs\n\n{single.markdown()}")
    images = [path for folder in dict.fromkeys([*map(Path, folders), out]) for path in folder.glob("overlays.jpg")]
    atomic_write(out / "tables.md", "\n".join(text).encode())
    facts = {"figure": "tables", "sources": sorted(map(str, found))}
    atomic_write(out / "tables.json", (json.dumps(facts, indent=2) + "\n").encode())
    atomic_write(out / "report.html", page(records, sections, single, images).encode())
    return [out / "tables.md", out / "report.html"]


def read_runs(folders: Iterable[str | Path], *, broken: list[RecordError] | None = None) -> dict[Path, dict[str, Any]]:
    """The records in some folders and their subfolders, oldest first, without copies."""
    found: dict[tuple[str, str, int], tuple[Path, dict[str, Any]]] = {}
    for folder in folders:
        for path, record in find_records(folder, broken=broken).items():
            found.setdefault((record["created"], record["experiment"], record["seed"]), (path, record))
    return dict(found[key] for key in sorted(found))
