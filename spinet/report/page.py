"""The reproduction as one self-contained HTML page: tables, figures, environment, and a list of what was not run."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2

from spinet.config import CITYSCAPES_R50, to_dict
from spinet.experiments.campaigns import Record, find_campaigns, without_seed
from spinet.experiments.tables import RATES, TABLES
from spinet.figures.style import to_png
from spinet.paper import CITYSCAPES, URL
from spinet.records import compare
from spinet.report.grid import Grid
from spinet.report.tables import LEAST, Section

TEMPLATE = Path(__file__).with_name("page.html")
COCO_VAL = 5000
"""§5.1: number of images in COCO val."""


def page(records: Sequence[Record], sections: Sequence[Section], single: Grid, images: Sequence[Path]) -> str:
    """The page, as HTML.

    Args:
        records: all records.
        sections: the tables.
        single: runs that do not belong to a table.
        images: JPEG files to show.
    """
    template = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    return template.from_string(TEMPLATE.read_text()).render(
        url=URL,
        sections=[(section, _uri("png", to_png(section.figure))) for section in sections],
        single=single,
        images=[_uri("jpeg", path.read_bytes()) for path in images],
        environment=environment(records),
        settings=settings(records),
        missing=not_run(records),
        records=len(records),
        hours=sum(record["hours"] for record in records),
    )


def environment(records: Sequence[Record]) -> Grid:
    """Machines, versions and source of the runs, the most frequent first."""
    found = Counter(
        (
            record["device"]["name"],
            str(record["device"]["processes"]),
            f"{str(record['commit'])[:8]}{' with changes' if record['dirty'] else ''}",
            ", ".join(f"{name} {version}" for name, version in record["versions"].items() if version),
        )
        for record in records
    )
    columns = ["runs", "device", "processes", "source", "versions"]
    return Grid([("", name) for name in columns], [[str(n), *facts] for facts, n in found.most_common()])


def settings(records: Sequence[Record]) -> Grid:
    """Differences between the start settings of the runs and the paper's Cityscapes preset."""
    started: dict[str, dict[str, Any]] = {"the paper's preset, Cityscapes": without_seed(to_dict(CITYSCAPES_R50))}
    for campaign in find_campaigns(records):
        name = campaign.data
        started[_unused(f"tables on {name}", started)] = campaign.base
    for record in records:
        if not record.get("base"):
            started[_unused(f"{record['experiment']} on {record['data']['name']}", started)] = without_seed(
                record["config"]
            )
    differing = compare([{"config": config} for config in started.values()])
    rows = [[name, *("–" if v is None else str(v) for v in values)] for name, values in differing.items()]
    return Grid([("", name) for name in ("setting", *started)], rows)


def not_run(records: Sequence[Record]) -> list[str]:
    """Experiments without a (complete) result, one line each."""
    finished = [record for record in records if record["status"] == "finished"]
    splits = [record["data"]["splits"] for record in finished]
    lines = []
    if {"train": CITYSCAPES.train, "val": CITYSCAPES.val} not in splits:
        lines.append("Cityscapes: no record, so this page neither confirms nor contradicts the paper's own values.")
    if not any(split.get("val") == COCO_VAL for split in splits):
        lines.append("COCO: no record.")
    campaigns = find_campaigns(finished)
    for table in TABLES.values():
        if table is RATES:
            continue
        counts = {
            campaign.title: {title: len(records) for title, records in campaign.rows(table).items()}
            for campaign in campaigns
        }
        measured = {data: rows for data, rows in counts.items() if sum(map(bool, rows.values())) >= 2}
        subject = f"{table.section}, {table.title[0].lower()}{table.title[1:]}"
        if not measured:
            lines.append(f"{subject}: not run.")
        for data, rows in measured.items():
            few = [f"{title} ({n})" for title, n in rows.items() if n < LEAST]
            if few:
                lines.append(f"{subject}, on {data}: fewer than {LEAST} runs of {', '.join(few)}.")
    unfinished = [record for record in records if record["status"] != "finished"]
    if unfinished:
        names = ", ".join(f"{r['experiment']} with seed {r['seed']} on {r['data']['name']}" for r in unfinished)
        lines.append(f"Started and not finished: {names}.")
    return lines


def _unused(name: str, taken: Mapping[str, Any]) -> str:
    number = 2
    unused = name
    while unused in taken:
        unused = f"{name} ({number})"
        number += 1
    return unused


def _uri(kind: str, content: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
