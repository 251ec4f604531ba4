"""§5.2 Inference: an image in, features, sampled filters, masks, and one panoptic map out.

Every rule that the paper leaves open is a field of `InferenceConfig`.
"""

from __future__ import annotations

from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from spinet.config import InferenceConfig
from spinet.data.segments import Categories, Sample
from spinet.data.transforms import EvalTransform
from spinet.duplicates import Candidates, mask_cut, rank
from spinet.merging import Resampler, merge
from spinet.model.filter_sampling import Locations
from spinet.model.spinet import SPINet
from spinet.precision import resolve
from spinet.weights import Model


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


def predict(model: Model, image: UInt8[np.ndarray, "H W 3"], *, instances: bool = False) -> Prediction:
    """The panoptic segmentation of an RGB image of any size, at its own resolution.

    Args:
        model: from `load_model`.
        image: uint8 RGB.
        instances: also give the instances down to the lower threshold that AP is computed with, with their masks.

    Raises:
        ValueError: the image is not uint8 [H, W, 3].
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or 0 in image.shape:
        raise ValueError(f"an image is uint8 of shape (H, W, 3), RGB; got {image.dtype} of shape {image.shape}")
    config, network = model.config.inference, model.network
    height, width = image.shape[:2]
    reduced = resolve(config.precision, model.device) == "bf16"
    start = perf_counter()
    scaled = _test_transform(model)(_bare_sample(image)).image
    with torch.inference_mode(), torch.autocast(model.device.type, torch.bfloat16, enabled=reduced):
        features = network(scaled[None].to(model.device))
        _synchronise(model.device)
        middle = perf_counter()
        threshold = min(config.ap_threshold, config.threshold) if instances else config.threshold
        locations, labels, confidences = find_peaks(
            [level[0].float() for level in features.class_logits], threshold=threshold, peak=config.peak, top=config.top
        )
        thing_logits, stuff_logits = network.single_shot(features, 0, locations)
        thing_logits = thing_logits.float()
        if config.reach is not None:
            thing_logits = within_reach(thing_logits, locations, network.strides, config.reach)
        candidates = rank(locations, labels, confidences, thing_logits, config)
    resampler = Resampler(network_size=(scaled.shape[1], scaled.shape[2]), size=(height, width), device=model.device)
    semantic_logits = resampler.whole(stuff_logits.float())
    semantic = semantic_logits.argmax(0)
    confident = candidates[(candidates.confidences >= config.threshold) & (candidates.kept >= config.keep)]
    kind = model.config.objective.semantic_classes
    ids, segments = merge(confident, semantic_logits, semantic, resampler, model.categories, config, kind)
    found = _instances(candidates, resampler, model.categories, config) if instances else []
    class_map = None
    if kind == "stuff+thing" and instances:
        class_logits = _finest([level[0].float() for level in features.class_logits])
        pixels = Resampler(
            network_size=resampler.network_size,
            size=(height, width),
            device=model.device,
            stride=network.strides[0],
        )
        class_map = pixels.whole(class_logits).argmax(0).cpu().numpy()
    result = Prediction(
        ids=ids.cpu().numpy(),
        segments=segments,
        instances=found,
        semantic=semantic.cpu().numpy(),
        class_map=class_map,
        network_seconds=middle - start,
        post_seconds=perf_counter() - middle,
    )
    return result


def find_peaks(
    class_logits: list[Float[Tensor, "N_t H_l W_l"]], *, threshold: float, peak: int, top: int
) -> tuple[Locations, Int[Tensor, "n"], Float[Tensor, "n"]]:
    """Places whose filters are sampled, with class and confidence, by falling confidence.

    Args:
        threshold: of the confidence (§5.2: 0.45).
        peak: a place must be the largest of its peak × peak neighbourhood in its class map; 1 takes all.
        top: places at most.
    """
    places, labels, confidences = [], [], []
    for level, logits in enumerate(class_logits):
        score = logits.sigmoid()
        largest = F.max_pool2d(score[None], peak, stride=1, padding=peak // 2)[0]
        label, y, x = torch.nonzero((score >= threshold) & (score == largest), as_tuple=True)
        places.append(torch.stack([torch.full_like(y, level), y, x], dim=1))
        labels.append(label)
        confidences.append(score[label, y, x])
    place, label, confidence = torch.cat(places), torch.cat(labels), torch.cat(confidences)
    confidence, order = confidence.sort(descending=True, stable=True)
    order = order[:top]
    return Locations(*place[order].unbind(1)), label[order], confidence[:top]


def within_reach(
    logits: Float[Tensor, "n h w"], locations: Locations, strides: list[int], reach: int
) -> Float[Tensor, "n h w"]:
    """Masks of stride 4 cut to the square of `reach` pixels on every side of the place where their filter was sampled.

    A filter that was trained on crops was never asked about pixels further away than a crop is wide.
    """
    stride = torch.tensor(strides, device=logits.device)[locations.level]
    far = torch.zeros_like(logits, dtype=torch.bool)
    for axis, (cell, size) in enumerate(((locations.y, logits.shape[1]), (locations.x, logits.shape[2]))):
        pixels = (torch.arange(size, device=logits.device) + 0.5) * SPINet.PHI_STRIDE
        distance = (pixels - ((cell + 0.5) * stride)[:, None]).abs()
        far |= (distance > reach).unsqueeze(2 - axis)
    return logits.masked_fill(far, -1e4)


def _instances(
    candidates: Candidates, resampler: Resampler, categories: Categories, config: InferenceConfig
) -> list[dict[str, Any]]:
    cut = mask_cut(config)
    found = []
    for label, score, logits in zip(
        candidates.labels.tolist(), candidates.scores.tolist(), candidates.logits, strict=True
    ):
        rows, columns = resampler.pixels(logits > cut)
        mask = np.zeros(resampler.size, dtype=bool)
        mask[rows, columns] = (resampler.window(logits[None], rows, columns)[0] > cut).cpu().numpy()
        found.append({"category_id": categories.all[label].id, "score": score, "mask": mask})
    return found


def _finest(class_logits: list[Float[Tensor, "N_t H_l W_l"]]) -> Float[Tensor, "N_t H_0 W_0"]:
    """The largest class logits over all levels, at the size of the first."""
    size = class_logits[0].shape[-2:]
    return torch.stack([F.interpolate(level[None], size, mode="bilinear")[0] for level in class_logits]).amax(0)


def _test_transform(model: Model) -> EvalTransform:
    source = model.config.input
    return EvalTransform(scale=source.test_scale, scale_unit=source.scale_unit, max_long_side=source.max_long_side)


def _bare_sample(image: np.ndarray) -> Sample:
    nothing = torch.zeros(0, dtype=torch.int64)
    return Sample(
        image_id=0,
        image=torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1),
        segment_map=torch.zeros(image.shape[:2], dtype=torch.int32),
        labels=nothing,
        crowd=nothing.bool(),
    )


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
