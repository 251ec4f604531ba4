"""Writes the numbers of the README, of docs/results.md, docs/speed.md and the model card from records: `make docs`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from spinet.experiments.campaigns import find_campaigns, newest
from spinet.files import atomic_write, read_json
from spinet.records import find_records, read_record
from spinet.report.grid import Grid
from spinet.report.single import QUALITIES, cost, is_single, percent, results_table, system
from spinet.report.verdicts import CLAIMS, verdicts
from spinet.speed.summary import read_benchmarks, summary
from spinet.weights import SHIPPED

ROOT = Path(__file__).resolve().parent.parent
RUNS = ROOT / "figures" / "runs"
README, CARD = ROOT / "README.md", SHIPPED.parent / "README.md"
RESULTS, SPEED = ROOT / "docs" / "results.md", ROOT / "docs" / "speed.md"
START, END = "<!-- generated from records by make docs -->", "<!-- end of what is generated -->"


PAIRS = 5
"""Smallest number of pairs of runs of a verdict in the README."""

NETWORKS = {"with the auxiliary tasks": "", "without them": "_no_tasks"}
"""The networks in the package, with the ends of their files' names."""


def single_records() -> list[dict[str, Any]]:
    """Records of single runs by data set and length, and last the record of the weights in the package."""
    runs = sorted(filter(is_single, find_records(RUNS).values()), key=lambda r: (r["data"]["name"], r["iterations"]))
    return [*runs, packaged_record("")]


def packaged_record(end: str) -> dict[str, Any]:
    """The record of one of the networks in the package."""
    return read_record(CARD.parent / f"synthcity{end}.json")


def short_table(records: Iterable[Mapping[str, Any]]) -> Grid:
    """One row per record: SPINet's scores in percent, and PQ of its semantic output with connected components."""
    names = (*QUALITIES, "AP", "mIoU")
    columns = ["data", *names, "PQ of semantics + components", "started from", "iterations", "trained"]
    rows = []
    for record in records:
        scores = [percent(record["metrics"][name]) for name in (*names, "PQ_components")]
        schedule = [start(record), str(record["iterations"]), cost(record)]
        rows.append([record["data"]["name"], *scores, *schedule])
    return Grid([("", name) for name in columns], rows)


def start(record: Mapping[str, Any]) -> str:
    """What a training started from."""
    if record.get("init"):
        return "trained weights"
    return "ImageNet features" if record["config"]["model"]["pretrained"] else "random weights"


def verdict_table() -> Grid:
    """The paper's claims on its parts, one row per claim; two columns for each data set and length of training.

    They have the newest campaign with `PAIRS` seeds or more.
    """
    finished = find_campaigns(r for r in find_records(RUNS).values() if r["status"] == "finished")
    large = [c for c in finished if any(len(verdict.differences) >= PAIRS for verdict in verdicts(c))]
    found = {
        subject: {v.claim.statement: v for v in verdicts(campaign) if len(v.differences) >= PAIRS}
        for subject, campaign in newest(large).items()
    }
    rows = []
    for claim in CLAIMS:
        if not any(claim.statement in judged for judged in found.values()):
            continue
        row = [claim.statement, "–" if claim.published is None else f"{claim.published:+.1f}"]
        for judged in found.values():
            if verdict := judged.get(claim.statement):
                low, high = verdict.interval
                row += [f"{verdict.mean:+.1f} ({low:+.1f} … {high:+.1f})", verdict.words]
            else:
                row += ["–", "not run"]
        rows.append(row)
    columns = [("", "claim of the paper"), ("", "PQ there")]
    columns += [(title, name) for title in found for name in ("PQ here (95 % interval)", "verdict")]
    return Grid(columns, rows)


def speed_tables(benchmarks: Iterable[Mapping[str, Any]]) -> str:
    """Markdown: the conditions of each record and its rows from `summary`."""
    parts = []
    for record in benchmarks:
        rows = summary(record)
        name, height, width = record["device"]["name"], *record["size"]
        grid = Grid([("", head) for head in rows[0]], [[_short(value) for value in row.values()] for row in rows])
        parts.append(
            f"{height} × {width} px, preset `{record['preset']}`, {name}, {record['threads']} threads, medians of "
            f"{record['repeats']} rounds:\n\n{grid.markdown()}"
        )
    return "\n".join(parts)


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.0f}" if value >= 100 else f"{value:.3g}"
    return "–" if value is None else str(value)


def replaced(text: str, content: str) -> str:
    """The text with new content between the two marks `START` and `END`."""
    before, rest = text.split(START)
    _, after = rest.split(END)
    return f"{before}{START}\n\n{content}\n{END}{after}"


def network_table() -> Grid:
    """The scores of both networks in percent, on SynthCity and on KITTI's photos, which neither was trained on.

    The last row is the first network after more training, on photos of CamVid.
    """
    rows, kitti = [], []
    for name, end in NETWORKS.items():
        record = packaged_record(end)
        city = record["metrics"]
        scores = [city[name] for name in (*QUALITIES, "AP", "mIoU")]
        semantic = [city[f"{quality}_components"] for quality in QUALITIES] + [None, city["mIoU"]]
        images = f"{record['data']['name']}, {city['images']} scenes"
        trained = f"{record['iterations']} iterations, {cost(record)}"
        rows.append([images, name, *map(percent, scores), trained])
        rows.append([images, f"{name}: its semantic output + connected components", *map(percent, semantic), ""])
        kitti.append(kitti_row(name, f"kitti{end}.json"))
    rows += [*kitti, kitti_row("with the auxiliary tasks, then trained on CamVid", "kitti_camvid.json")]
    return Grid([("", name) for name in ("data", "network", *QUALITIES, "AP", "mIoU", "trained")], rows)


def kitti_row(name: str, file: str) -> list[str]:
    """A row of `network_table`, from a result of `spinet evaluate`."""
    photos = read_json(CARD.parent / file)
    scores = [photos[part]["pq"] for part in ("All", "Things", "Stuff")] + [photos[part] for part in ("AP", "mIoU")]
    return [f"KITTI, {photos['images']} photos", name, *(percent(100 * score) for score in scores), ""]


def class_table() -> Grid:
    """PQ of each class in percent, with the things' AP, of both networks on SynthCity and on KITTI's photos."""
    ends = NETWORKS.values()
    cities = [packaged_record(end)["metrics"] for end in ends]
    photos = [read_json(CARD.parent / f"kitti{end}.json")["per_class"] for end in ends]
    rows = []
    for key, one in cities[0]["per_class"].items():
        scores = [city["per_class"][key]["pq"] for city in cities]
        scores += [city["average_precision"]["per_class"].get(key, {}).get("AP") for city in cities]
        scores += [photo.get(key, {}).get("pq") for photo in photos]
        there = photos[0].get(key, {})
        counts = one["tp"] + one["fn"], there.get("tp", 0) + there.get("fn", 0)
        rows.append([one["name"], str(counts[0]), *(percent(s and 100 * s) for s in scores), str(counts[1])])
    columns = ["PQ", "PQ without tasks", "AP", "AP without", "PQ on KITTI", "PQ on KITTI without"]
    return Grid([("", name) for name in ("class", "segments", *columns, "segments there")], rows)


def size_table() -> Grid:
    """Which share of the things both networks find, by size and by what is around them."""
    ours, without = (read_json(CARD.parent / f"instances{end}.json")["found"] for end in NETWORKS.values())
    rows = []
    for trait, one in ours.items():
        found = (one["spinet"], without[trait]["spinet"], one["components"])
        rows.append([trait, str(one["number"]), *(percent(100 * each / one["number"]) for each in found)])
    columns = ("things", "number", "found", "found without tasks", "found by components of the first")
    return Grid([("", name) for name in columns], rows)


def pages() -> dict[Path, str]:
    """The current text of every page with generated numbers."""
    card = (network_table(), class_table(), size_table())
    ours = (record for record in single_records() if system(record) == "spinet")
    content = {
        README: "\n".join(grid.markdown() for grid in (short_table(ours), verdict_table()) if grid.rows),
        RESULTS: results_table(single_records()).markdown(),
        SPEED: speed_tables(read_benchmarks(RUNS)),
        CARD: "\n".join(grid.markdown() for grid in card),
    }
    return {path: replaced(path.read_text(encoding="utf-8"), new) for path, new in content.items()}


if __name__ == "__main__":
    for path, text in pages().items():
        atomic_write(path, text.encode())
