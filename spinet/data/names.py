"""Matches predictions to images: by id if file names agree, else by file name."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

Id = int | str
Names = Mapping[Id, tuple[str, ...]]

ENDINGS = re.compile(r"(_gtFine)?_(leftImg8bit|panoptic|instanceIds|labelIds)$")
"""What Cityscapes adds to the name of an image, for each kind of file."""
SUFFIX = re.compile(r"\.(png|jpe?g|bmp|tiff?|webp|gif|p[bgp]m)$", re.IGNORECASE)


def names_of(content: Mapping[str, Any]) -> Names:
    """The names that a panoptic JSON file gives to each annotated image, in all `forms`.

    They are the names of the image file and the panoptic PNG file, and the id if it is a string.
    """
    images = content.get("images")
    entries = [*(images if isinstance(images, list) else []), *content["annotations"]]
    found: dict[Id, list[str]] = {annotation["image_id"]: [] for annotation in content["annotations"]}
    for entry in filter(lambda entry: isinstance(entry, dict), entries):
        image_id = entry.get("image_id", entry.get("id"))
        if isinstance(image_id, int | str) and image_id in found:
            given = entry.get("file_name")
            found[image_id] += [name for name in (given, image_id) if isinstance(name, str)]
    return {image_id: forms(*names) for image_id, names in found.items()}


def forms(*names: str) -> tuple[str, ...]:
    """Each name with and without its folders, with and without its suffix, longest first."""
    found = set()
    for name in names:
        path = PurePosixPath(name.replace("\\", "/"))
        stem = ENDINGS.sub("", SUFFIX.sub("", path.name))
        found |= {stem, str(path.with_name(stem)), path.name, str(path)} if stem else set()
    return tuple(sorted(found, key=lambda form: (-len(form), form)))


def matched_names(truth: Names, predicted: Names) -> dict[Id, Id]:
    """The predicted id for each true id, matched by their longest common name that is unique on both sides."""
    owners: list[dict[str, list[Id]]] = [{}, {}]
    for side, names in enumerate((truth, predicted)):
        for image_id, own in names.items():
            for form in own:
                owners[side].setdefault(form, []).append(image_id)
    found: dict[Id, Id] = {}
    taken: set[Id] = set()
    for image_id, own in truth.items():
        for form in own:
            others = owners[1].get(form, [])
            if len(owners[0][form]) == len(others) == 1 and others[0] not in taken:
                found[image_id] = others[0]
                taken.add(others[0])
                break
    return found
