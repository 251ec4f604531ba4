"""COCO panoptic layout (§5.1): `annotations/panoptic_{split}.json`, `annotations/panoptic_{split}/`, `{split}/`."""

from __future__ import annotations

from pathlib import Path

from spinet.data.annotations import ImageEntry, Split


def recognised(root: Path) -> bool:
    """Whether the folder has this layout."""
    return (root / "annotations").is_dir()


def splits(root: Path) -> dict[str, Split]:
    """The splits that have panoptic annotations. Official splits have the year in their name: "val2017"."""
    found = {}
    for path in sorted((root / "annotations").glob("panoptic_*.json")):
        name = path.stem.removeprefix("panoptic_")
        if path.with_suffix("").is_dir() or (root / name).is_dir():
            found[name] = split(root, name)
    return found


def instances(root: Path, name: str) -> Path:
    """The path of the annotations of the detection task, whose masks overlap."""
    return root / "annotations" / f"instances_{name}.json"


def split(root: Path, name: str) -> Split:
    """The split, even if its files do not exist."""
    folder = root / "annotations" / f"panoptic_{name}"

    def image_path(image: ImageEntry) -> Path:
        return root / name / image.file_name

    return Split(name, folder.with_name(f"{folder.name}.json"), folder, image_path)
