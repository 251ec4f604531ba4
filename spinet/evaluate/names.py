"""Which prediction belongs to which image: by id where file names agree, by file name otherwise."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from spinet.evaluate.overlaps import EvaluationError

Id = int | str
Names = Mapping[Id, tuple[str, ...]]

ENDINGS = re.compile(r"(_gtFine)?_(leftImg8bit|panoptic|instanceIds|labelIds)$")
"""What Cityscapes adds to the name of an image, differently for each of its files."""
SUFFIX = re.compile(r"\.(png|jpe?g|bmp|tiff?|webp|gif|p[bgp]m)$", re.IGNORECASE)


def names_of(content: Mapping[str, Any]) -> Names:
    """The names that a panoptic JSON file gives to each annotated image, in all `forms`.

    They come from the image's file, the panoptic PNG file, and the id where it is a string.
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
    """Each name with its folders and without, with its suffix and without, the longest first."""
    found = set()
    for name in names:
        path = PurePosixPath(name.replace("\\", "/"))
        stem = ENDINGS.sub("", SUFFIX.sub("", path.name))
        found |= {stem, str(path.with_name(stem)), path.name, str(path)} if stem else set()
    return tuple(sorted(found, key=lambda form: (-len(form), form)))


def matched(truth: Names, predicted: Names, where: Path) -> dict[Id, Id]:
    """The predicted id of each true one.

    Ids count if every image has its prediction under its own id and a name in common with it. Otherwise names alone
    count, if every image has exactly one prediction of its name.

    Raises:
        EvaluationError: neither holds; the message says which image has no prediction, or which names contradict the
            ids. `where` is the file to name.
    """
    if all(image_id in predicted and set(truth[image_id]) & set(predicted[image_id]) for image_id in truth):
        return {image_id: image_id for image_id in truth}
    by_name = matched_names(truth, predicted)
    missing = [image_id for image_id in truth if image_id not in by_name]
    if not missing:
        return by_name
    absent = [image_id for image_id in truth if image_id not in predicted]
    if absent:
        first, kinds = absent[0], {type(image_id).__name__ for image_id in predicted}
        hint = "" if type(first).__name__ in kinds else f"; its ids are of type {', '.join(sorted(kinds))}"
        raise EvaluationError(
            f"{where}: no prediction for {len(absent)} of {len(truth)} images by id, for {len(missing)} by file_name, "
            f"the first is {first!r}{hint}: predict every image of the ground truth"
        )
    first, there, here = missing[0], _some(truth[missing[0]]), _some(predicted[missing[0]])
    raise EvaluationError(
        f"{where}: image {first!r} has the file_name {there} in the ground truth, {here} among the predictions: keep "
        "file names, as `spinet predict --like` does, or correct the ids"
    )


def matched_names(truth: Names, predicted: Names) -> dict[Id, Id]:
    """The predicted id of each true one with which it shares a name, the longest, that is unique on both sides."""
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


def _some(names: tuple[str, ...]) -> str:
    return repr(names[0]) if names else "of none"
