"""Panoptic data: samples, the layouts of §5.1, transforms, and the stream of training samples."""

from __future__ import annotations

from pathlib import Path

from spinet.data import cityscapes, coco
from spinet.data.annotations import Faults, ImageRecord, Split, parse
from spinet.data.panoptic import PanopticDataset
from spinet.data.segments import VOID, Batch, Categories, Category, DataError, RawSample, Sample
from spinet.data.whole_masks import read_whole_masks

__all__ = [
    "VOID",
    "Batch",
    "Categories",
    "Category",
    "DataError",
    "ImageRecord",
    "PanopticDataset",
    "RawSample",
    "Sample",
    "find_splits",
    "open_dataset",
]


def find_splits(root: str | Path) -> dict[str, Split]:
    """The annotated splits of a folder in the layout of Cityscapes or of COCO panoptic.

    Raises:
        DataError: the folder has neither layout, or no annotated split.
    """
    root = Path(root)
    layout = cityscapes if cityscapes.recognised(root) else coco
    if not layout.recognised(root):
        looked_for = "gtFine/ and leftImg8bit/ (Cityscapes) nor annotations/ (COCO panoptic)"
        raise DataError(f"{root}: contains neither {looked_for}; see data/README.md for the expected files")
    splits = layout.splits(root)
    if not splits:
        looked_for = "gtFine/{train,val,test}/*/*_gtFine_instanceIds.png or annotations/panoptic_*.json with its images"
        raise DataError(f"{root}: has no annotated split; looked for {looked_for}")
    return splits


def open_dataset(root: str | Path, split: str, *, whole_masks: bool = False) -> PanopticDataset:
    """The data set in a folder in the layout of Cityscapes or of COCO panoptic.

    `split` is "train", "val", …; "val" means "val2017" if only that exists. Images are not opened yet. With
    `whole_masks`, samples include the hidden parts of things, from COCO's `instances_{split}.json`.

    Raises:
        DataError: the data do not exist, or the JSON file is faulty.
    """
    root = Path(root)
    splits = find_splits(root)
    chosen = splits.get(split) or splits.get(f"{split}2017")
    if chosen is None:
        raise DataError(f"{root}: has no split {split!r} with panoptic annotations; there are: {', '.join(splits)}")
    if not chosen.annotations.is_file():
        raise DataError(f"{chosen.annotations}: missing; run: spinet data prepare cityscapes {root}")
    faults = Faults()
    document = parse(chosen, faults)
    if faults.count:
        kind, tally = next(iter(faults.kinds.items()))
        example = f"{kind}: {tally.examples[0]}"
        raise DataError(f"{chosen.annotations}: {faults.count} faults, first {example}; run: spinet data check {root}")
    if not document.categories.all:
        raise DataError(f"{chosen.annotations}: defines no category; list the classes")
    if not document.records:
        raise DataError(f"{chosen.annotations}: lists no image; run: spinet data check {root}")
    return PanopticDataset(
        root=root,
        split=chosen.name,
        categories=document.categories,
        records=document.records,
        fingerprint=document.fingerprint,
        whole_masks=read_whole_masks(coco.instances(root, chosen.name), document.records) if whole_masks else None,
    )
