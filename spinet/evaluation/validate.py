"""§5.3 Evaluate a trained model on a split: PQ, AP, mIoU, and PQ of semantics plus connected components."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from statistics import median
from typing import Any, TypeVar

import torch.distributed as dist
from tqdm.auto import tqdm

from spinet.data import PanopticDataset, cityscapes
from spinet.data.label_space import IGNORE
from spinet.data.segments import decode_ids
from spinet.evaluation import AveragePrecision, CityscapesPrecision, MeanIoU, PanopticQuality, summarize
from spinet.evaluation.bootstrap import Bootstrap
from spinet.evaluation.cityscapes_precision import THINGS
from spinet.evaluation.components import components
from spinet.inference.predict import predict
from spinet.system import Model

T = TypeVar("T")


def validate(model: Model, dataset: PanopticDataset, *, rank: int = 0, world_size: int = 1) -> dict[str, Any]:
    """Predicts and evaluates a split. Processes share the images, and each returns the whole result.

    Returns:
        `All`, `Things`, `Stuff`, `per_class`, `sizes` (see `PanopticQuality.result`), `Components` (the same keys for
        the semantic output plus connected components), `bootstrap` (see `Bootstrap.result`), `AP`, `mIoU` (0 … 1),
        `average_precision` (on Cityscapes see `CityscapesPrecision.result`, elsewhere `AveragePrecision.result`),
        `summary` (the paper's columns in percent), `images` (their number), `network_seconds`, `post_seconds` (medians
        per image).
    """
    categories, config = model.categories, model.config.inference
    dataset = dataset.with_categories(categories)
    space = model.space
    panoptic, single, bootstrap = PanopticQuality(categories), PanopticQuality(categories), Bootstrap(categories)
    official = is_cityscapes(dataset)
    precision = CityscapesPrecision(categories) if official else AveragePrecision(categories, max_detections=config.top)
    semantic = MeanIoU(space.num_outputs, ignore=(IGNORE,))
    times = []
    indices = range(rank, len(dataset), world_size)
    raws = (_ahead if model.device.type == "cuda" else map)(dataset.read, indices)
    bar = tqdm(indices, desc="evaluate", unit="image", disable=rank > 0, leave=False)
    for index, raw in zip(bar, raws, strict=True):
        record = dataset.records[index]
        prediction = predict(model, raw.image, instances=True)
        gt_ids, gt_segments = decode_ids(raw.panoptic), record.segments_info
        counts = panoptic.update(gt_ids, gt_segments, prediction.ids, prediction.segments)
        bootstrap.update(record.image_id, counts)
        single.update(gt_ids, gt_segments, *components(prediction, categories, config, space))
        if isinstance(precision, CityscapesPrecision):
            file = cityscapes.instance_file(dataset.root, dataset.split, record.image_id)
            precision.update(record.image_id, cityscapes.read_instance_ids(file), prediction.instances)
        else:
            precision.update(record.image_id, gt_ids, gt_segments, prediction.instances)
        truth = space.ground_truth(raw.look_up().segment_map.numpy(), raw.labels.numpy())
        semantic.update(truth, prediction.semantic)
        times.append((prediction.network_seconds, prediction.post_seconds))
    for part in _gather((panoptic, single, precision, semantic, bootstrap, times), rank, world_size):
        panoptic.merge(part[0])
        single.merge(part[1])
        precision.merge(part[2])
        semantic.merge(part[3])
        bootstrap.merge(part[4])
        times += part[5]
    result = panoptic.result()
    ap = precision.result()
    miou = semantic.result()
    return {
        **result,
        "Components": single.result(),
        "bootstrap": bootstrap.result(),
        "AP": ap["AP"],
        "mIoU": miou["mIoU"],
        "average_precision": ap,
        "summary": {
            **summarize(result),
            "AP": 100 * ap["AP"],
            "mIoU": 100 * miou["mIoU"],
            **{f"{name}_components": value for name, value in summarize(single.result()).items() if name[:2] == "PQ"},
        },
        "images": len(dataset),
        "network_seconds": median(t[0] for t in times),
        "post_seconds": median(t[1] for t in times),
    }


def is_cityscapes(dataset: PanopticDataset) -> bool:
    """Whether the data has Cityscapes' layout and things, so that the official Cityscapes code can evaluate it."""
    return cityscapes.recognised(dataset.root) and {category.id for category in dataset.categories.things} == THINGS


def _ahead(function: Callable[[int], T], items: Iterable[int]) -> Iterator[T]:
    """The function's results in order; a thread computes the next one while the caller uses the current one."""
    with ThreadPoolExecutor(1) as thread:
        coming: Future[T] | None = None
        for item in items:
            next_one = thread.submit(function, item)
            if coming is not None:
                yield coming.result()
            coming = next_one
        if coming is not None:
            yield coming.result()


def _gather(part: Any, rank: int, world_size: int) -> list[Any]:
    """The parts of the other processes."""
    if world_size == 1:
        return []
    parts: list[Any] = [None] * world_size
    dist.all_gather_object(parts, part)
    return parts[:rank] + parts[rank + 1 :]
