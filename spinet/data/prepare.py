"""Preparation of data: makes the panoptic files of Cityscapes, and checks all files of either layout.

`check` finds the faulty files on which the official evaluation code would crash.
"""

from __future__ import annotations

import contextlib
import io
import os
import signal
import tempfile
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from cityscapesscripts.helpers.labels import id2label
from cityscapesscripts.preparation.createPanopticImgs import convert2panoptic

from spinet.data import cityscapes, find_splits
from spinet.data.annotations import Document, Faults, ImageRecord, Split, parse
from spinet.data.examine import Findings, examine, pixel_counts
from spinet.data.panoptic import strangers
from spinet.data.segments import Categories, DataError
from spinet.files import read_json


@dataclass(frozen=True)
class Prepared:
    """The panoptic files of a split."""

    split: str
    annotations: Path  # the JSON file; the folder of the same name has the PNG files
    images: int
    segments: int


def prepare_cityscapes(root: str | Path) -> list[Prepared]:
    """Makes the panoptic JSON and PNG files of every split with instance annotations, by the official script.

    They appear when they are complete. An interrupted run leaves the earlier files, or none that can be opened.

    Raises:
        DataError: there are no instance annotations, or one of them is broken or has unknown labels.
    """
    root = Path(root)
    files = {split: cityscapes.instance_files(root, split) for split in cityscapes.SPLITS}
    if not any(files.values()):
        wanted = f"gtFine/{{train,val,test}}/*/*{cityscapes.INSTANCE_IDS}"
        raise DataError(f"{root}: has no {wanted}; see data/README.md for the expected files")
    for path in (path for paths in files.values() for path in paths):
        _check_instances(path)
    return [_convert(root, split) for split, paths in files.items() if paths]


def _check_instances(path: Path) -> None:
    """Raises `DataError` unless the file has the instance ids that the official script expects."""
    for value in pixel_counts(cityscapes.read_instance_ids(path)):
        if (value if value < 1000 else value // 1000) not in id2label:
            raise DataError(f"{path}: instance id {value} has no Cityscapes label; fetch the file again")


def _convert(root: Path, split: str) -> Prepared:
    target = cityscapes.split(root, split)
    with tempfile.TemporaryDirectory(dir=root / "gtFine", prefix=".panoptic-") as aside:
        with contextlib.redirect_stdout(io.StringIO()):
            try:
                convert2panoptic(str(root / "gtFine"), aside, setNames=[split])
            except OSError as error:  # if the disk is full, it does not name a file
                raise OSError(
                    error.errno, error.strerror or str(error), error.filename or str(root / "gtFine")
                ) from None
        made, old = Path(aside), Path(aside) / "old"
        document = read_json(made / target.annotations.name)
        target.annotations.unlink(missing_ok=True)  # removed first, written last: it marks a complete folder
        if target.folder.exists():
            os.replace(target.folder, old)
        os.replace(made / target.folder.name, target.folder)
        os.replace(made / target.annotations.name, target.annotations)
    segments = sum(len(annotation["segments_info"]) for annotation in document["annotations"])
    return Prepared(split, target.annotations, len(document["images"]), segments)


@dataclass
class Report:
    """The result of a check. `faults` prevent training and evaluation, `warnings` do not."""

    root: str
    images: dict[str, int] = field(default_factory=dict)  # by split
    segments: dict[str, int] = field(default_factory=dict)  # by category name
    faults: Faults = field(default_factory=Faults)
    warnings: Faults = field(default_factory=Faults)

    @property
    def ok(self) -> bool:
        return not self.faults.count

    def add(self, found: Findings, root: Path) -> None:
        """Adds the findings of an image in the folder `root`."""
        for tallies, findings in ((self.faults, found.faults), (self.warnings, found.warnings)):
            for kind, path, detail in findings:
                tallies.add(kind, _relative(path, root), detail)

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON values."""
        return {"ok": self.ok, **asdict(self)}

    def __str__(self) -> str:
        splits = ", ".join(f"{count} images in {name}" for name, count in self.images.items())
        lines = [f"{self.root}: {'sound' if self.ok else f'{self.faults.count} faults'}; {splits or 'no images'}"]
        lines += [f"    {count:8d}  {name}" for name, count in self.segments.items()]
        for title, found in (("Faults", self.faults), ("Warnings", self.warnings)):
            lines += [f"{title}:", str(found)] if found.count else []
        return "\n".join(lines)


def check(root: str | Path, *, splits: Iterable[str] | None = None, workers: int = 1, examples: int = 5) -> Report:
    """Checks every file of a data folder, in `workers` processes. Faults of the data are reported, not raised.

    The report has the count and the first `examples` of each kind of fault. `splits` defaults to all splits.
    """
    root = Path(root)
    report = Report(str(root), faults=Faults(limit=examples), warnings=Faults(limit=examples))
    try:
        found = find_splits(root)
    except DataError as error:
        report.faults.add("no data", root, str(error))
        return report
    documents: dict[str, Document] = {}
    wanted = list(found) if splits is None else list(splits)
    for name in wanted:
        if name not in found:
            report.faults.add("no such split", root, f"{name!r}; there are: {', '.join(found)}")
        else:
            _check_split(root, found[name], report, workers, documents)
    if splits is None:
        for maps in sorted(path for path in (root / "annotations").glob("panoptic_*") if path.is_dir()):
            if not maps.with_suffix(".json").exists():
                report.faults.add("no JSON file", maps.with_suffix(".json").name, f"missing, but {maps.name}/ exists")
    first = next(iter(documents), None)
    for name, document in documents.items():
        for stranger in strangers(document.records, document.categories, documents[first or name].categories):
            report.faults.add("other classes than in another split", found[name].annotations.name, stranger)
    return report


def _check_split(root: Path, split: Split, report: Report, workers: int, documents: dict[str, Document]) -> None:
    gt_files = cityscapes.instance_files(root, split.name) if cityscapes.recognised(root) else []
    if not split.annotations.is_file():
        command = f"spinet data prepare cityscapes {root}"
        report.faults.add("no panoptic files", split.annotations.name, f"missing; run: {command}")
        return
    try:
        document = parse(split, report.faults)
    except DataError as error:
        report.faults.add("unusable JSON file", split.annotations.name, str(error))
        return
    documents[split.name] = document
    if not report.faults.count:
        for what, entries in (("category", document.categories.all), ("image", document.records)):
            if not entries:
                report.faults.add(f"no {what}", split.annotations.name, "lists none")
    report.images[split.name] = len(document.records)
    _count_segments(document.categories, document.records, split, report)
    others: dict[str, tuple[Path, ...]] = {}
    if gt_files:
        listed = {f"{record.image_id}{cityscapes.INSTANCE_IDS}" for record in document.records}
        for path in gt_files:
            if path.name not in listed:
                report.faults.add("annotation not in the JSON file", _relative(path, root), "prepare it again")
        folder = root / "gtFine" / split.name
        city_of = {path.name.removesuffix(cityscapes.INSTANCE_IDS): path.parent for path in gt_files}
        for record in document.records:
            city = city_of.get(str(record.image_id), folder / record.image.parent.name)
            endings = cityscapes.INSTANCE_IDS, cityscapes.LABEL_IDS
            others[str(record.image_id)] = tuple(city / f"{record.image_id}{ending}" for ending in endings)
    jobs = document.records, [others.get(str(record.image_id), ()) for record in document.records]
    with contextlib.ExitStack() as stack:
        pool = stack.enter_context(ProcessPoolExecutor(workers, initializer=_leave_signals)) if workers > 1 else None
        for found in pool.map(examine, *jobs, chunksize=16) if pool else map(examine, *jobs):
            report.add(found, root)


def _leave_signals() -> None:
    """Leaves Ctrl-C to the parent process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    cv2.setNumThreads(0)


def _count_segments(categories: Categories, records: list[ImageRecord], split: Split, report: Report) -> None:
    counts = Counter(category_id for record in records for category_id in record.segments.category_ids.tolist())
    for category in categories.all:
        report.segments[category.name] = report.segments.get(category.name, 0) + counts[category.id]
    stuff = np.array([category.id for category in categories.stuff])
    for record in records:
        if not len(record.segments.ids):
            report.warnings.add("image without any segment", record.panoptic.name, "no effect on scores and training")
        crowd = record.segments.crowd & np.isin(record.segments.category_ids, stuff)
        for segment_id in record.segments.ids[crowd].tolist():
            report.warnings.add("crowd flag on stuff", record.panoptic.name, f"segment {segment_id}")


def _relative(path: Path, root: Path) -> Path:
    return path.relative_to(root) if path.is_relative_to(root) else path
