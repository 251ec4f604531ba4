"""§5.2 Inference, step by step: slow and short. Tests compare the fast path with it.

It implements the rules of the paper's presets. Only the fast path has the options `connected`, `agreement`, `contested`
and `fill_threshold`, and duplicate removal other than matrix NMS.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Int
from torch import Tensor

from spinet.inference.predict import run_network
from spinet.inference.resample import Resampler
from spinet.model.filter_sampling import Locations
from spinet.model.spinet import SPINet
from spinet.system import Model


@torch.inference_mode()
def predict(model: Model[SPINet], image: Any) -> tuple[Int[np.ndarray, "H W"], list[dict[str, Any]]]:
    """The segment id at each pixel, 0 void, and the segments: id, category_id, area; things also score."""
    config, space, categories = model.config.inference, model.space, model.categories
    output = run_network(model, image)

    # sample a filter where a class score reaches the threshold and is the largest of its neighbourhood
    found = []  # confidence, class, level, row, column
    for level, logits in enumerate(output.features.class_logits):
        score = logits[0].float().sigmoid()
        largest = F.max_pool2d(score, config.peak, stride=1, padding=config.peak // 2)
        for label, y, x in torch.nonzero((score >= config.threshold) & (score == largest)).tolist():
            found.append((float(score[label, y, x]), label, level, y, x))
    found = sorted(found, key=lambda one: -one[0])[: config.top]

    # one convolution applies the sampled filters and the stuff filters to the Panoptic-Feature (§3.4)
    locations = Locations(*torch.tensor([one[2:] for one in found], dtype=torch.long).view(-1, 3).unbind(1))
    thing_logits, stuff_logits = model.network.single_shot(output.features, 0, locations)
    probability = thing_logits.float().sigmoid()
    masks = probability > config.mask_threshold

    # score: class confidence × mean probability inside the mask
    scored = [
        (confidence * float(probability[i][masks[i]].mean()), label, i)
        for i, (confidence, label, *_) in enumerate(found)
        if masks[i].any()
    ]
    scored.sort(key=lambda one: -one[0])

    # matrix NMS: a mask that overlaps a better one of its class loses score, and is dropped if it loses too much
    kept = []
    for j, (score, label, i) in enumerate(scored):
        decay = 1.0
        for k, (_, other, better) in enumerate(scored[:j]):
            if other == label:
                worst = max((iou(masks[m], masks[better]) for _, c, m in scored[:k] if c == label), default=0.0)
                overlap = iou(masks[i], masks[better])
                decay = min(decay, float(np.exp(config.matrix_sigma * (worst**2 - overlap**2))))
        if decay >= config.keep:
            kept.append((score * decay, label, i))

    # things first, sorted by score: drop one if more than `overlap` of its area is already covered
    pixels = Resampler.of(output).whole(thing_logits.float()).sigmoid() > config.mask_threshold
    ids, segments = torch.zeros(output.size, dtype=torch.int32), []
    for score, label, i in sorted(kept, key=lambda one: -one[0]):
        free = pixels[i] & (ids == 0)
        if not free.any() or free.sum() < (1 - config.overlap) * pixels[i].sum():
            continue
        segments.append({"id": len(segments) + 1, "category_id": categories.things[label].id, "score": score})
        ids[free] = len(segments)

    # stuff fills the rest: the best stuff class, unless the stuff path predicts a thing and that class is improbable
    semantic = Resampler.of(output).whole(stuff_logits.float()).softmax(0)
    best, stuff = semantic[space.first_stuff :][: space.num_stuff].max(0)
    free = (ids == 0) & (~space.is_thing(semantic.argmax(0)) | (best >= config.stuff_threshold))
    for index, category in enumerate(categories.stuff):
        region = free & (stuff == index)
        if region.any() and region.sum() >= config.min_stuff_area * region.numel():
            segments.append({"id": len(segments) + 1, "category_id": category.id})
            ids[region] = len(segments)
    return ids.numpy(), [segment | {"area": int((ids == segment["id"]).sum())} for segment in segments]


def iou(a: Bool[Tensor, "h w"], b: Bool[Tensor, "h w"]) -> float:
    """Intersection over union of two masks."""
    return float((a & b).sum() / (a | b).sum())
