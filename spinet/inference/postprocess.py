"""§5.2 SPINet's post-processing: sampled filters, masks, one panoptic map. `reference` does the same in few lines."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from spinet.config import InferenceConfig
from spinet.inference.candidates import Candidates, find_ranked
from spinet.inference.merge import masks_in_windows, merge
from spinet.inference.merge_at_once import Merged, masks_at_once, merge_at_once
from spinet.inference.resample import Resampler
from spinet.machine import synchronise
from spinet.model.spinet import Features, SPINet
from spinet.system import Model, NetworkOutput, Panoptic

ROUNDS = 4
"""Number of instances that the merge on CUDA may drop before it must be repeated."""


def postprocess(
    model: Model[SPINet], output: NetworkOutput[Features], config: InferenceConfig, *, instances: bool
) -> Panoptic:
    """See `Model.postprocess`."""
    threshold = min(config.ap_threshold, config.threshold) if instances else config.threshold
    return merge_ranked(model, output, *find_ranked(model, output, config, threshold), config, instances=instances)


def merge_ranked(
    model: Model[SPINet],
    output: NetworkOutput[Features],
    candidates: Candidates,
    stuff_logits: Float[Tensor, "N_s h w"],
    config: InferenceConfig,
    *,
    instances: bool = False,
) -> Panoptic:
    """The part of `postprocess` after `find_ranked`."""
    merge_all = _merge_at_once if stuff_logits.is_cuda else _merge_in_turn
    return merge_all(model, output, candidates, stuff_logits, config, instances=instances)


def _merge_in_turn(
    model: Model[SPINet],
    output: NetworkOutput[Features],
    candidates: Candidates,
    stuff_logits: Float[Tensor, "N_s h w"],
    config: InferenceConfig,
    *,
    instances: bool,
) -> Panoptic:
    """Merges one instance after the other, each in its window: for CPUs."""
    candidates = candidates[candidates.areas > 0]
    resampler = Resampler.of(output)
    semantic = resampler.labels(stuff_logits)
    confident = candidates[(candidates.confidences >= config.threshold) & (candidates.kept >= config.keep)]
    ids, segments = merge(confident, stuff_logits, semantic, resampler, model.categories, config, model.space)
    found = _instances(model, candidates, semantic, resampler, config) if instances else []
    class_map = _class_map(model, output) if instances else None
    return Panoptic(
        ids=ids.cpu().numpy(),
        segments=segments,
        instances=found,
        semantic=semantic.cpu().numpy(),
        class_map=None if class_map is None else class_map.cpu().numpy(),
    )


def _merge_at_once(
    model: Model[SPINet],
    output: NetworkOutput[Features],
    candidates: Candidates,
    stuff_logits: Float[Tensor, "N_s h w"],
    config: InferenceConfig,
    *,
    instances: bool,
) -> Panoptic:
    """Merges all instances as one tensor, with one wait for the device at the end: for CUDA."""
    resampler = Resampler.of(output)
    logits = resampler.whole(stuff_logits)
    masks = masks_at_once(candidates, logits.argmax(0), resampler, config, model.space)
    confident = (candidates.areas > 0) & (candidates.confidences >= config.threshold) & (candidates.kept >= config.keep)
    class_map = _class_map(model, output) if instances else None
    labels, outputs = len(model.categories.all), len(stuff_logits)
    rounds, settled = ROUNDS, False
    while not settled:
        merged = merge_at_once(candidates, masks, confident, logits, resampler, config, model.space, rounds=rounds)
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
    return Panoptic(
        ids=ids.astype(np.int32),
        segments=segments,
        instances=found,
        semantic=semantic.astype(np.int64),
        class_map=rest[1].astype(np.int64) if class_map is not None else None,
    )


def _class_map(model: Model[SPINet], output: NetworkOutput[Features]) -> Int[Tensor, "H W"] | None:
    """The class head's best thing label at each pixel, if the stuff path has one output for all things."""
    if model.space.kind != "stuff+thing" or not model.categories.num_things:
        return None
    class_logits = _finest([level[0].float() for level in output.features.class_logits])
    return Resampler.of(output, model.network.strides[0]).whole(class_logits).argmax(0)


def _finest(class_logits: list[Float[Tensor, "N_t H_l W_l"]]) -> Float[Tensor, "N_t H_0 W_0"]:
    """The largest class logits over all levels, at the size of the first."""
    size = class_logits[0].shape[-2:]
    return torch.stack([F.interpolate(level[None], size, mode="bilinear")[0] for level in class_logits]).amax(0)


def _instances(
    model: Model[SPINet],
    candidates: Candidates,
    semantic: Int[Tensor, "H W"],
    resampler: Resampler,
    config: InferenceConfig,
) -> list[dict[str, Any]]:
    found = []
    for window, part in masks_in_windows(candidates, semantic, resampler, config, model.space):
        mask = np.zeros(resampler.size, dtype=bool)
        mask[window] = part.cpu().numpy()
        found.append(mask)
    return [
        {"category_id": model.categories.all[label].id, "score": score, "mask": mask}
        for label, score, mask in zip(candidates.labels.tolist(), candidates.scores.tolist(), found, strict=True)
    ]


def _smallest(values: Int[Tensor, "H W"], largest: int) -> Int[Tensor, "H W"]:
    """Converts values 0 … `largest` to the smallest type that can store them."""
    return values.to(torch.uint8 if largest < 2**8 else torch.int16 if largest < 2**15 else torch.int32)


def _fetch(tensors: list[Tensor]) -> list[np.ndarray]:
    """Copies the tensors to page-locked memory of the host, with one wait for all of them."""
    fetched = [tensor.to("cpu", non_blocking=True) for tensor in tensors]
    synchronise(tensors[0].device)
    return [tensor.numpy() for tensor in fetched]
