"""Writes docs/paper_map.md: where each figure, table, equation and claim of the paper is in this project.

    python docs/paper_map.py

The minutes are those of the run records in figures/runs. The tests check that notebooks, headings and commands exist.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from spinet.experiments.campaigns import Campaign, find_campaigns
from spinet.experiments.tables import TABLES
from spinet.records import find_records
from spinet.report.grid import Grid

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "paper_map.md"
RUNS = ROOT / "figures" / "runs"

Status = Literal["redrawn", "checked", "in miniature", "not run here"]

HEAD = """# Paper map

Where each figure, table, equation and claim of [the paper](references.md) is in this project. `docs/paper_map.py`
writes this page, and a test checks that its notebooks, headings and commands exist.

- **redrawn**: this code draws the figure or prints the numbers.
- **checked**: the notebook computes the statement and asserts it, or compares it with a naive twin.
- **in miniature**: small networks and short trainings on SynthCity. The result is about these runs; it neither confirms
  nor refutes the number in the paper.
- **not run here**: there is no record of it. Table 1 needs Cityscapes or COCO and the paper's eight GPUs.

*Minutes* are the sum of the training times in the run records, on the processor that they name. A dash means that no
record measures the time. `make notebook NB=54` executes a notebook.

"""

SWEEP = "spinet sweep --campaign synthcity --data data/synthcity --out runs/synthcity --seeds 0 1 2 --groups"
SCRATCH = "model.backbone=resnet10t model.norm=group model.pretrained=false model.freeze_stages=0"
TEST = "python -m pytest tests/test_equations.py"
INFO = "spinet info --preset cityscapes_r50"


@dataclass(frozen=True)
class Entry:
    """One item of the paper."""

    place: str
    what: str
    notebook: str  # the first two digits of its name
    heading: str
    command: str
    status: Status
    group: str | None = None  # of `TABLES`, whose records tell the minutes
    record: str | None = None  # name of one record in figures/runs, likewise


FIGURES = (
    Entry(
        "Fig. 1", "four ways to combine instances and semantics", "12", "Perfect outputs", "make figure-1", "redrawn"
    ),
    Entry("Fig. 2", "the whole network", "30", "The shapes", "make figure-2", "redrawn"),
    Entry("Fig. 3", "the Panoptic-Feature generator", "33", "An image passes through", "make figure-3", "redrawn"),
    Entry("Fig. 4", "the intra-class triplet loss", "40", "On the real φ", "make figure-4", "redrawn"),
    Entry(
        "Fig. 5",
        "results without and with the tasks",
        "61",
        "Fig. 5",
        "make figure-5",
        "in miniature",
    ),
)

TABLE_ENTRIES = (
    Entry(
        "Table 1",
        "PQ, AP and mIoU on Cityscapes",
        "53",
        "What was not run",
        "spinet train --preset cityscapes_r50 --data data/cityscapes --out runs/cityscapes",
        "not run here",
    ),
    Entry(
        "Table 1",
        "PQ, AP and mIoU on COCO",
        "53",
        "What was not run",
        "spinet train --preset coco_r50 --data data/coco --out runs/coco",
        "not run here",
    ),
    Entry(
        "Table 1",
        "the systems on one data set",
        "54",
        "What the runs show",
        f"{SWEEP} table1",
        "in miniature",
        "table1",
    ),
    Entry(
        "Table 1",
        "deformable convolutions",
        "54",
        "What the runs show",
        f"{SWEEP} deformable --overrides {SCRATCH}",
        "in miniature",
        "deformable",
    ),
    Entry("Table 2", "parameters", "30", "Against the paper's tables", INFO, "redrawn"),
    Entry(
        "Table 2", "milliseconds, on other machines", "53", "Timings", "spinet bench --json bench.json", "in miniature"
    ),
    Entry("Table 3", "the losses", "54", "What the runs show", f"{SWEEP} table3", "in miniature", "table3"),
    Entry("Table 4", "the pyramid levels", "54", "What the runs show", f"{SWEEP} table4", "in miniature", "table4"),
    Entry("Table 5", "one feature or two: PQ", "54", "What the runs show", f"{SWEEP} table5", "in miniature", "table5"),
    Entry("Table 5", "one feature or two: parameters, MACs", "30", "What the integration saves", INFO, "redrawn"),
)

EQUATIONS = (
    Entry("Eq. 1", "dice loss of things", "34", "Things: Eq. 1", TEST, "checked"),
    Entry("Eq. 2", "multi-class dice loss of stuff", "34", "Stuff: Eq. 2", TEST, "checked"),
    Entry("Eq. 3", "random halves of an instance", "40", "Halves: Eq. 3", TEST, "checked"),
    Entry("Eq. 4", "a vector for each half", "40", "A vector for each half: Eq. 4", TEST, "checked"),
    Entry("Eq. 5", "intra-class triplet loss", "40", "The loss: Eq. 5", TEST, "checked"),
    Entry("Eq. 6", "inter-class contour loss", "41", "Contours: Eq. 6", TEST, "checked"),
    Entry("Eq. 7", "the sum of all losses", "41", "All together: Eq. 7", TEST, "checked"),
)

CLAIMS = (
    Entry(
        "§1",
        "one path is good on things and on stuff",
        "53",
        "The balance of things and stuff",
        "make figure-published",
        "redrawn",
    ),
    Entry(
        "§1, §5.3",
        "63.5 PQ on Cityscapes, 43.0 on COCO",
        "53",
        "What was not run",
        "spinet train --preset cityscapes_r50 --data data/cityscapes --out runs/cityscapes --model.deformable",
        "not run here",
    ),
    Entry(
        "§2.1",
        "Mask R-CNN is good on things, DeepLab on stuff",
        "53",
        "The balance of things and stuff",
        "make figure-published",
        "redrawn",
    ),
    Entry(
        "§2",
        "what the other systems compute, merge and lose",
        "12",
        "All five, on several scenes",
        "make notebook NB=12",
        "checked",
    ),
    Entry(
        "§3.1",
        "lower pyramid levels balance things and stuff",
        "31",
        "Which levels",
        f"{SWEEP} table4",
        "in miniature",
        "table4",
    ),
    Entry(
        "§3.1",
        "halving C2 saves computation",
        "31",
        "What breaks when C2 is not halved",
        "make notebook NB=31",
        "checked",
    ),
    Entry(
        "§3.2",
        "filters are sampled where a class is confident",
        "32",
        "Where filters are sampled",
        "make notebook NB=32",
        "checked",
    ),
    Entry(
        "§3.2",
        "the layer after the sampling saves memory",
        "32",
        "Why the layer comes after the sampling",
        "make notebook NB=32",
        "checked",
    ),
    Entry(
        "§3.3",
        "stride 8 inside the generator",
        "55",
        "Resize first, or convolve first?",
        "make notebook NB=55",
        "checked",
    ),
    Entry(
        "§3.3",
        "absolute instead of relative coordinates",
        "33",
        "What the coordinates are for",
        "make notebook NB=33",
        "checked",
    ),
    Entry(
        "§3.3",
        "relative coordinates are a strong cue",
        "53",
        "Positions relative to each thing",
        f"{SWEEP} condinst",
        "in miniature",
        "condinst",
    ),
    Entry("§3.4", "one convolution gives all masks", "34", "One by one, the same", "make notebook NB=34", "checked"),
    Entry(
        "§3.4",
        "the multi-class dice loss helps",
        "54",
        "What the runs show",
        f"{SWEEP} table3",
        "in miniature",
        "table3",
    ),
    Entry(
        "§4",
        "φ has clusters of classes and instances",
        "60",
        "Numbers, in all dimensions",
        f"{SWEEP} table3",
        "in miniature",
        "table3",
    ),
    Entry(
        "§4",
        "the contour task brings borders into φ",
        "61",
        "Does φ contain contours without the task?",
        "make notebook NB=61",
        "in miniature",
    ),
    Entry(
        "§5.1",
        "sizes of the data sets",
        "51",
        "Two benchmarks, and a third one that comes with the package",
        "make notebook NB=51",
        "redrawn",
    ),
    Entry(
        "§5.2",
        "the schedule of training",
        "52",
        "The schedule",
        "make reproduce",
        "in miniature",
        record="reproduce.json",
    ),
    Entry("§5.2", "the merge of Panoptic-FPN", "35", "The merge", "make notebook NB=35", "checked"),
    Entry(
        "§5.4",
        "the tasks keep masks from spilling",
        "61",
        "Do masks cover their neighbours?",
        "make notebook NB=61",
        "in miniature",
    ),
    Entry(
        "§5.4",
        "CondInst cannot be integrated",
        "54",
        "The experiments as data",
        f"{SWEEP} condinst",
        "in miniature",
        "condinst",
    ),
)

PARTS: Mapping[str, Sequence[Entry]] = {
    "Figures": FIGURES,
    "Tables": TABLE_ENTRIES,
    "Equations": EQUATIONS,
    "Claims": CLAIMS,
}


def page() -> str:
    """The text of docs/paper_map.md."""
    records = find_records(RUNS)
    finished = [record for record in records.values() if record["status"] == "finished"]
    campaigns = [campaign for campaign in find_campaigns(finished) if campaign.data == "synthcity"]
    single = {path.name: record for path, record in records.items()}
    text = HEAD
    for title, entries in PARTS.items():
        rows = []
        for entry in entries:
            minutes, status = "–", entry.status
            if entry.group:
                runs = _runs(campaigns, entry.group)
                minutes, status = (_minutes(runs), status) if runs else ("–", "not run here")
            elif entry.record:
                minutes = _minutes([single[entry.record]])
            rows.append([entry.place, entry.what, _link(entry), f"`{entry.command}`", minutes, status])
        columns = ("paper", "what", "notebook", "command", "minutes", "status")
        text += f"## {title}\n\n{Grid([('', name) for name in columns], rows).markdown()}\n"
    return text.rstrip() + "\n"


def notebook(entry: Entry) -> Path:
    """The file of an entry's notebook."""
    (path,) = (ROOT / "notebooks").glob(f"{entry.notebook}_*.ipynb")
    return path


def _link(entry: Entry) -> str:
    return f"[{entry.notebook}](../notebooks/{notebook(entry).name}) · {entry.heading}"


def _runs(campaigns: Sequence[Campaign], group: str) -> list[Mapping[str, Any]]:
    """The records of a table, from the campaign with the most; none if fewer than two different rows were run."""
    best: list[Mapping[str, Any]] = []
    for campaign in campaigns:
        runs = campaign.rows(TABLES[group])
        different = {tuple(record["created"] for record in of_row.values()) for of_row in runs.values() if of_row}
        found = {record["created"]: record for of_row in runs.values() for record in of_row.values()}
        if len(different) >= 2 and len(found) > len(best):
            best = list(found.values())
    return best


def _minutes(records: Sequence[Mapping[str, Any]]) -> str:
    devices = sorted({record["device"]["name"] for record in records})
    number = f", {len(records)} runs" if len(records) > 1 else ""
    return f"{60 * sum(record['hours'] for record in records):.0f}{number} on {', '.join(devices)}"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
