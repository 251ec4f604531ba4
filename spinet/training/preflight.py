"""Checks before the first iteration: of the data, the network, the schedule, and what the final evaluation needs."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

import torch.distributed as dist
from tqdm.auto import tqdm

from spinet.config import Config, ConfigError, TrainConfig
from spinet.data import Categories, PanopticDataset
from spinet.data.annotations import Faults
from spinet.data.examine import examine
from spinet.data.segments import DataError
from spinet.evaluation.validate import validate
from spinet.model.backbone import BackboneError
from spinet.system import Model
from spinet.systems import build_model

DECODED = 2000
"""Number of training images that are decoded, evenly spread; of the others only the headers are read."""


def check_data(train_set: PanopticDataset, val_set: PanopticDataset, *, rank: int = 0, world_size: int = 1) -> None:
    """A fast form of `spinet data check` for both splits; each process checks its share.

    All files must exist and have the right size and kind. All validation images are decoded.

    Raises:
        DataError: a file has a fault, or the classes of the splits disagree. Warnings are logged.
    """
    val_set.with_categories(train_set.categories)
    faults, doubts = Faults(), Faults()
    for dataset, decoded in ((train_set, DECODED), (val_set, len(val_set))):
        every = -(-len(dataset) // decoded)
        indices = range(rank, len(dataset), world_size)
        bar = tqdm(indices, desc=f"check {dataset.split}", unit="image", disable=rank > 0, leave=False, delay=5)
        for index in bar:
            record = dataset.records[index]
            found = examine(record, pixels=index % every == 0)
            for tally, findings in ((faults, found.faults), (doubts, found.warnings)):
                for kind, path, detail in findings:
                    tally.add(kind, path, detail)
            if not len(record.segments.ids):
                doubts.add(f"image of {dataset.split} without any segment", record.panoptic, "no effect on training")
    for kind, tally in doubts.kinds.items():
        logging.getLogger(__name__).warning("%d × %s, such as %s", tally.count, kind, tally.examples[0])
    parts: list[Faults] = [faults] * world_size
    if world_size > 1:
        dist.all_gather_object(parts, faults)
    if count := sum(part.count for part in parts):
        kind, tally = next(item for part in parts for item in part.kinds.items())
        what = f"{kind}: {tally.examples[0]}"
        raise DataError(f"{train_set.root}: {count} faults, first {what}; run: spinet data check {train_set.root}")


def check_network(config: Config, categories: Categories) -> None:
    """Builds the network, without ImageNet weights.

    Raises:
        ConfigError: its settings do not fit each other.
    """
    try:
        build_model(config, categories, weights_follow=True)
    except BackboneError as error:
        raise ConfigError(str(error)) from None


def check_schedule(settings: TrainConfig) -> None:
    """Logs a warning if the warm-up takes the whole run, so that the learning rate never reaches its value."""
    if settings.warmup >= settings.iterations:
        logging.getLogger(__name__).warning(
            "train.warmup is %d, but train.iterations is only %d: the rate never reaches train.learning_rate; "
            "choose a shorter warm-up, such as %d",
            settings.warmup,
            settings.iterations,
            settings.iterations // 8,
        )


def rehearse(model: Model, val_set: PanopticDataset) -> dict[str, Any]:
    """Evaluates the network on the smallest and the largest validation image, to test the final evaluation."""
    records = sorted(val_set.records, key=lambda record: record.width * record.height)
    return validate(model, replace(val_set, records=list({r.image_id: r for r in (records[0], records[-1])}.values())))
