"""§5.2 Inference: an image in, features, sampled filters, masks, and one panoptic map out.

Every rule that the paper leaves open is a field of `InferenceConfig`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from spinet.baselines.system import Baseline, Reading
from spinet.config import InferenceConfig
from spinet.data.readers import as_image
from spinet.data.segments import Categories, Sample
from spinet.data.transforms import EvalTransform
from spinet.inference.duplicates import Candidates, mask_cut, rank
from spinet.inference.mask_logits import MaskLogits
from spinet.inference.merge import merge
from spinet.inference.merge_at_once import Merged, masks_at_once, merge_at_once
from spinet.inference.resample import Resampler
from spinet.machine import exact_float32, resolve
from spinet.model.filter_sampling import Locations
from spinet.model.spinet import Features, SPINet
from spinet.weights import Model

ROUNDS = 4
"""Instances that the merge on CUDA may drop before it has to be done again."""


@dataclass
class Encoded:
    """What the network computes of an image of H × W pixels, before any filter is sampled: see `encode`."""

    features: Features  # of a batch of this one image; of a baseline its own outputs
    size: tuple[int, int]  # H, W
    network_size: tuple[int, int]  # of the image as the network saw it, without padding, pixels
    seconds: float

    def resampler(self, stride: int = SPINet.PHI_STRIDE) -> Resampler:
        """From maps of that stride (the Panoptic-Feature's, and so that of all logits) to pixels of the image."""
        device = self.features.phi.device
        return Resampler(network_size=self.network_size, size=self.size, device=device, stride=stride)


@dataclass
class Prediction:
    """What `predict` says about an image of H × W pixels."""

    ids: Int[np.ndarray, "H W"]  # int32, segment id at each pixel, 0 void
    segments: list[dict[str, Any]]  # id, category_id, isthing, area; things also score, bbox (x, y, width, height)
    instances: list[dict[str, Any]]  # category_id, score, mask bool [H, W], by falling score; empty unless asked for
    semantic: Int[np.ndarray, "H W"]  # the label that the stuff path alone gives (see `num_semantic`)
    class_map: Int[np.ndarray, "H W"] | None  # the class head's best thing label, where the stuff path has one "thing"
    network_seconds: float
    post_seconds: float


def predict(model: Model, image: UInt8[np.ndarray, "H W 3"] | Any, *, instances: bool = False) -> Prediction:
    """The panoptic segmentation of an RGB image of any size, at its own resolution: `encode`, then `read_out`.

    Args:
        model: from `load_model`.
        image: uint8 RGB; also grey [H, W], a Pillow image, or the path of an image file, see `as_image`.
        instances: also give the instances down to the lower threshold that AP is computed with, with their masks.

    Raises:
        ValueError: the image is none of these; the message says what it is.
    """
    return read_out(model, encode(model, image), instances=instances)


@torch.inference_mode()
def encode(model: Model, image: UInt8[np.ndarray, "H W 3"] | Any) -> Encoded:
    """Runs the network, once: class logits, filters, and the Panoptic-Feature of an RGB image of any size.

    Nothing in the result depends on thresholds or merge rules, so `read_out` may be called on it again and again.

    Raises:
        ValueError: the image is none that `as_image` takes.
    """
    image = as_image(image)
    start = perf_counter()
    scaled = _test_transform(model)(_bare_sample(image)).image
    with _arithmetic(model, model.config.inference):
        features = model.network(_upload(scaled, model.device)[None])
    synchronise(model.device)
    return Encoded(
        features=features,
        size=(image.shape[0], image.shape[1]),
        network_size=(scaled.shape[1], scaled.shape[2]),
        seconds=perf_counter() - start,
    )


@torch.inference_mode()
def find_candidates(
    model: Model, encoded: Encoded, config: InferenceConfig | None = None, *, threshold: float | None = None
) -> tuple[Candidates, Float[Tensor, "N_s h w"]]:
    """Instances before they are merged, and the logits of the stuff path, by one single-shot convolution (§3.4).

    Args:
        config: rules to use instead of the model's own.
        threshold: confidence at which a filter is sampled; by default the rules' own.

    Returns:
        The candidates by falling score, duplicates marked in `kept` but not dropped, and the stuff logits, both at
        stride 4 of the network's input; `encoded.resampler()` brings them to pixels of the image.
    """
    candidates, stuff_logits = _find(model, encoded, config or model.config.inference, threshold)
    return candidates[candidates.areas > 0], stuff_logits


def _find(
    model: Model, encoded: Encoded, config: InferenceConfig, threshold: float | None
) -> tuple[Candidates, Float[Tensor, "N_s h w"]]:
    """The same, with candidates whose mask is empty, last."""
    locations, labels, confidences = find_peaks(
        [level[0].float() for level in encoded.features.class_logits],
        threshold=config.threshold if threshold is None else threshold,
        peak=config.peak,
        top=config.top,
    )
    network = model.network
    with _arithmetic(model, config):
        thing_logits, stuff_logits = network.single_shot(encoded.features, 0, locations)
    places = network.places(locations)
    if network.reach is None:
        masks = MaskLogits.of(thing_logits)
    else:
        masks = MaskLogits.around(thing_logits, places, reach=network.reach, stride=network.PHI_STRIDE)
    if config.connected:
        masks = masks.connected(mask_cut(config), places / network.PHI_STRIDE)
    return rank(locations, labels, confidences, masks, config), stuff_logits.float()


@torch.inference_mode()
def read_out(
    model: Model, encoded: Encoded, config: InferenceConfig | None = None, *, instances: bool = False
) -> Prediction:
    """Sampled filters → masks → one panoptic map, by the rules of §5.2: all of `predict` but the network.

    Args:
        model: the one that made `encoded`.
        config: rules to use instead of the model's own, such as `replace(model.config.inference, threshold=0.3)`.
        instances: as for `predict`.
    """
    config = config or model.config.inference
    start = perf_counter()
    if isinstance(model.network, Baseline):
        reading = model.network.read(encoded.features, encoded.network_size, config, instances=instances)
        return _prediction(reading.resized(encoded.size), model.categories, encoded.seconds, start)
    threshold = min(config.ap_threshold, config.threshold) if instances else config.threshold
    candidates, stuff_logits = _find(model, encoded, config, threshold)
    read = _read_at_once if stuff_logits.is_cuda else _read_in_turn
    return read(model, encoded, candidates, stuff_logits, config, start, instances=instances)


def _read_in_turn(
    model: Model,
    encoded: Encoded,
    candidates: Candidates,
    stuff_logits: Float[Tensor, "N_s h w"],
    config: InferenceConfig,
    start: float,
    *,
    instances: bool,
) -> Prediction:
    """One instance after the other, each where it is: the way for a processor."""
    candidates = candidates[candidates.areas > 0]
    resampler = encoded.resampler()
    semantic = resampler.labels(stuff_logits)
    confident = candidates[(candidates.confidences >= config.threshold) & (candidates.kept >= config.keep)]
    kind = model.config.objective.semantic_classes
    ids, segments = merge(confident, stuff_logits, semantic, resampler, model.categories, config, kind)
    found = _instances(candidates, resampler, model.categories, config) if instances else []
    class_map = _class_map(model, encoded) if instances else None
    return Prediction(
        ids=ids.cpu().numpy(),
        segments=segments,
        instances=found,
        semantic=semantic.cpu().numpy(),
        class_map=None if class_map is None else class_map.cpu().numpy(),
        network_seconds=encoded.seconds,
        post_seconds=perf_counter() - start,
    )


def _read_at_once(
    model: Model,
    encoded: Encoded,
    candidates: Candidates,
    stuff_logits: Float[Tensor, "N_s h w"],
    config: InferenceConfig,
    start: float,
    *,
    instances: bool,
) -> Prediction:
    """All instances as one tensor, and one wait for the device at the end: the way for CUDA."""
    resampler, kind = encoded.resampler(), model.config.objective.semantic_classes
    logits = resampler.whole(stuff_logits)
    masks = masks_at_once(candidates, resampler, config)
    confident = (candidates.areas > 0) & (candidates.confidences >= config.threshold) & (candidates.kept >= config.keep)
    class_map = _class_map(model, encoded) if instances else None
    labels, outputs = len(model.categories.all), len(stuff_logits)
    rounds, settled = ROUNDS, False
    while not settled:
        merged = merge_at_once(
            candidates, masks, confident, logits, resampler, model.categories, config, kind, rounds=rounds
        )
        wanted = [
            merged.settled,
            _smallest(merged.ids, len(masks) + outputs),
            _smallest(logits.argmax(0), outputs),
            merged.things,
            merged.stuff,
            candidates.labels,
            candidates.scores,
            candidates.areas,
            *([masks] if instances else []),
            *([_smallest(class_map, labels)] if class_map is not None else []),
        ]
        settled, ids, semantic, things, stuff, thing_labels, scores, areas, *rest = _fetch(wanted)
        rounds *= 4
    segments = Merged.segments(things, stuff, thing_labels, scores, model.categories)
    found = (
        [
            {"category_id": model.categories.all[label].id, "score": score, "mask": mask}
            for label, score, area, mask in zip(thing_labels.tolist(), scores.tolist(), areas, rest[0], strict=True)
            if area
        ]
        if instances
        else []
    )
    return Prediction(
        ids=ids.astype(np.int32),
        segments=segments,
        instances=found,
        semantic=semantic.astype(np.int64),
        class_map=rest[1].astype(np.int64) if class_map is not None else None,
        network_seconds=encoded.seconds,
        post_seconds=perf_counter() - start,
    )


def _smallest(values: Int[Tensor, "H W"], largest: int) -> Int[Tensor, "H W"]:
    """Values 0 … `largest` in as few bytes as hold them."""
    return values.to(torch.uint8 if largest < 2**8 else torch.int16 if largest < 2**15 else torch.int32)


def _fetch(tensors: list[Tensor]) -> list[np.ndarray]:
    """The tensors in the host's memory, page-locked, after one wait for all of them."""
    fetched = [tensor.to("cpu", non_blocking=True) for tensor in tensors]
    synchronise(tensors[0].device)
    return [tensor.numpy() for tensor in fetched]


def _prediction(reading: Reading, categories: Categories, network_seconds: float, start: float) -> Prediction:
    """What a baseline read, in the form that everything is evaluated in."""
    segments = reading.segments(categories)
    found = [
        {"category_id": categories.all[i.label].id, "score": i.score, "mask": i.mask.cpu().numpy()}
        for i in reading.instances
    ]
    return Prediction(
        ids=reading.ids.cpu().numpy(),
        segments=segments,
        instances=found,
        semantic=reading.semantic.cpu().numpy(),
        class_map=None,
        network_seconds=network_seconds,
        post_seconds=perf_counter() - start,
    )


def _class_map(model: Model, encoded: Encoded) -> Int[Tensor, "H W"] | None:
    """The class head's best thing label at each pixel, where the stuff path has one output for all things."""
    if model.config.objective.semantic_classes != "stuff+thing" or not model.categories.num_things:
        return None
    class_logits = _finest([level[0].float() for level in encoded.features.class_logits])
    return encoded.resampler(model.network.strides[0]).whole(class_logits).argmax(0)


def find_peaks(
    class_logits: list[Float[Tensor, "N_t H_l W_l"]], *, threshold: float, peak: int, top: int
) -> tuple[Locations, Int[Tensor, "n"], Float[Tensor, "n"]]:
    """Places whose filters are sampled, with class and confidence, by falling confidence.

    Args:
        threshold: of the confidence (§5.2: 0.45).
        peak: a place must be the largest of its peak × peak neighbourhood in its class map; 1 takes all.
        top: places at most.
    """
    scores, peaks, shapes, start = [], [], [], 0
    for logits in class_logits:
        score = logits.sigmoid()
        largest = F.max_pool2d(score[None], peak, stride=1, padding=peak // 2)[0] if len(score) else score
        scores.append(score.flatten())
        peaks.append(((score >= threshold) & (score == largest)).flatten())
        shapes.append((start, score.shape[1] * score.shape[2], score.shape[2]))
        start += score.numel()
    # one look for all levels: the host waits for the device each time
    found = torch.nonzero(torch.cat(peaks))[:, 0]
    confidence, order = torch.cat(scores)[found].sort(descending=True, stable=True)
    confidence, found = confidence[:top], found[order[:top]]
    table = torch.tensor(shapes).to(found.device, non_blocking=True)
    level = (found[:, None] >= table[1:, 0]).sum(1)
    first, cells, width = table[level].unbind(1)
    label, cell = (found - first) // cells, (found - first) % cells
    return Locations(level, cell // width, cell % width), label, confidence


def _instances(
    candidates: Candidates, resampler: Resampler, categories: Categories, config: InferenceConfig
) -> list[dict[str, Any]]:
    cut = mask_cut(config)
    found = []
    for number, window in enumerate(resampler.windows(candidates.logits, cut)):
        mask = np.zeros(resampler.size, dtype=bool)
        mask[window] = (resampler.one(candidates.logits, number, window) > cut).cpu().numpy()
        found.append(mask)
    return [
        {"category_id": categories.all[label].id, "score": score, "mask": mask}
        for label, score, mask in zip(candidates.labels.tolist(), candidates.scores.tolist(), found, strict=True)
    ]


def _finest(class_logits: list[Float[Tensor, "N_t H_l W_l"]]) -> Float[Tensor, "N_t H_0 W_0"]:
    """The largest class logits over all levels, at the size of the first."""
    size = class_logits[0].shape[-2:]
    return torch.stack([F.interpolate(level[None], size, mode="bilinear")[0] for level in class_logits]).amax(0)


@contextmanager
def _arithmetic(model: Model, config: InferenceConfig) -> Iterator[None]:
    reduced = resolve(config.precision, model.device) == "bf16"
    with exact_float32(), torch.autocast(model.device.type, torch.bfloat16, enabled=reduced):
        yield


def _test_transform(model: Model) -> EvalTransform:
    source = model.config.input
    return EvalTransform(scale=source.test_scale, scale_unit=source.scale_unit, max_long_side=source.max_long_side)


def _upload(image: UInt8[Tensor, "3 H W"], device: torch.device) -> UInt8[Tensor, "3 H W"]:
    """The picture on the device: to CUDA its bytes go as they lie, channels last, and nobody waits for them."""
    if device.type != "cuda":
        return image.contiguous().to(device)
    return image.pin_memory().to(device, non_blocking=True)


def _bare_sample(image: np.ndarray) -> Sample:
    nothing = torch.zeros(0, dtype=torch.int64)
    return Sample(
        image_id=0,
        image=torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1),
        segment_map=torch.zeros(image.shape[:2], dtype=torch.int32),
        labels=nothing,
        crowd=nothing.bool(),
    )


def synchronise(device: torch.device) -> None:
    """Waits until the device has done all that it was asked for."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
