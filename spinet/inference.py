"""§5.2 Inference: features, sampled filters, masks, removal of duplicates, merge into one panoptic map.

Every rule that the paper leaves open is a field of `InferenceConfig`.
"""

from __future__ import annotations

from dataclasses import dataclass
from time import perf_counter
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from spinet.config import InferenceConfig
from spinet.data.segments import VOID, Categories, Sample
from spinet.data.transforms import EvalTransform
from spinet.model.filter_sampling import Locations
from spinet.objective.targets import SemanticClasses, first_stuff
from spinet.precision import resolve
from spinet.weights import Model


@dataclass
class Candidates:
    """Instances before they are merged, by falling score."""

    labels: Int[Tensor, "n"]  # thing class
    scores: Float[Tensor, "n"]  # class confidence × mean mask probability × what the removal of duplicates left
    confidences: Float[Tensor, "n"]  # of the class head: what the threshold of §5.2 is about
    kept: Float[Tensor, "n"]  # share of the score that the removal of duplicates left, 0 … 1
    logits: Float[Tensor, "n h w"]  # stride 4 of the network's input
    locations: Locations  # where their filters were sampled

    def __getitem__(self, chosen: Tensor) -> Candidates:
        return Candidates(
            self.labels[chosen],
            self.scores[chosen],
            self.confidences[chosen],
            self.kept[chosen],
            self.logits[chosen],
            Locations(*(part[chosen] for part in self.locations)),
        )


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
        candidates = rank(locations, labels, confidences, thing_logits.float(), config)
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


def rank(
    locations: Locations,
    labels: Int[Tensor, "n"],
    confidences: Float[Tensor, "n"],
    logits: Float[Tensor, "n h w"],
    config: InferenceConfig,
) -> Candidates:
    """Scores masks, drops empty ones, and marks duplicates down."""
    inside = logits > _cut(config)
    area = inside.flatten(1).sum(1)
    scores = confidences * (logits.sigmoid() * inside).flatten(1).sum(1) / area.clamp(min=1)
    candidates = Candidates(labels, scores, confidences, torch.ones_like(scores), logits, locations)
    order = scores.argsort(descending=True, stable=True)
    order = order[area[order] > 0]
    candidates, inside = candidates[order], inside[order]
    if config.duplicates == "none" or len(order) == 0:
        return candidates
    iou = mask_iou(inside).triu(1) * (candidates.labels[:, None] == candidates.labels)
    if config.duplicates == "matrix":
        candidates.kept = matrix_nms(iou, sigma=config.matrix_sigma)
    else:
        candidates.kept = mask_nms(iou, threshold=config.nms_iou)
    candidates.scores = candidates.scores * candidates.kept
    return candidates[candidates.scores.argsort(descending=True, stable=True)]


def _cut(config: InferenceConfig) -> float:
    """The logit above which a pixel belongs to a mask."""
    return float(torch.logit(torch.tensor(config.mask_threshold)))


def mask_iou(masks: Bool[Tensor, "n h w"]) -> Float[Tensor, "n n"]:
    """Intersection over union of every pair of masks."""
    flat = masks.flatten(1).float()
    intersection = flat @ flat.t()
    area = flat.sum(1)
    return intersection / (area[:, None] + area - intersection)


def matrix_nms(iou: Float[Tensor, "n n"], *, sigma: float) -> Float[Tensor, "n"]:
    """Matrix NMS of SOLOv2, Gaussian: the share of its score that each mask keeps.

    Args:
        iou: upper triangle, by falling score; 0 for pairs that do not compete.
        sigma: sharpness of the decay e^(−σ IoU²).
    """
    worst = iou.amax(0)  # how much each mask is itself suppressed
    decay = torch.exp(-sigma * (iou**2 - worst[:, None] ** 2))
    return decay.where(iou > 0, 1.0).amin(0).clamp(max=1.0)


def mask_nms(iou: Float[Tensor, "n n"], *, threshold: float) -> Float[Tensor, "n"]:
    """Plain greedy NMS on masks: 1 for a mask that stays, 0 for one that overlaps a better one that stays."""
    competing = (iou > threshold).cpu()
    stays = torch.ones(len(iou))
    for better in range(len(iou)):
        if stays[better]:
            stays[competing[better]] = 0
    return stays.to(iou.device)


class Resampler:
    """Logits at stride 4 of the padded network input to pixels of the image, bilinearly, in one step."""

    def __init__(self, *, network_size: tuple[int, int], size: tuple[int, int], device: torch.device, stride: int = 4):
        self.size = size
        self.network_size = network_size
        self.stride = stride
        self.rows, self.columns = (
            # cell coordinate of each pixel: (pixel centre · scale) / stride − 1/2
            (torch.arange(out, device=device) + 0.5) * (inner / out) / stride - 0.5
            for inner, out in zip(network_size, size, strict=True)
        )

    def whole(self, logits: Float[Tensor, "n h w"]) -> Float[Tensor, "n H W"]:
        """All pixels."""
        return self.window(logits, slice(0, self.size[0]), slice(0, self.size[1]))

    def window(self, logits: Float[Tensor, "n h w"], rows: slice, columns: slice) -> Float[Tensor, "n p q"]:
        """The pixels of a rectangle."""
        vertical = _weights(self.rows[rows], logits.shape[1])
        horizontal = _weights(self.columns[columns], logits.shape[2])
        upper, lower, y = vertical
        tall = torch.lerp(logits[:, upper], logits[:, lower], y[:, None])
        left, right, x = horizontal
        return torch.lerp(tall[:, :, left], tall[:, :, right], x)

    def pixels(self, mask: Bool[Tensor, "h w"]) -> tuple[slice, slice]:
        """A rectangle of pixels outside which the resampled mask is empty."""
        if not mask.any():
            return slice(0, 0), slice(0, 0)
        slices = []
        for axis, positions in ((1, self.rows), (0, self.columns)):
            cells = torch.nonzero(mask.any(axis))
            inside = torch.nonzero((positions > cells[0] - 1) & (positions < cells[-1] + 1))
            slices.append(slice(int(inside[0]), int(inside[-1]) + 1) if len(inside) else slice(0, 0))
        return slices[0], slices[1]


def _weights(positions: Float[Tensor, "p"], cells: int) -> tuple[Tensor, Tensor, Tensor]:
    positions = positions.clamp(0, cells - 1)
    lower = positions.floor().long()
    return lower, (lower + 1).clamp(max=cells - 1), positions - lower


def merge(
    candidates: Candidates,
    semantic_logits: Float[Tensor, "N_s H W"],
    semantic: Int[Tensor, "H W"],
    resampler: Resampler,
    categories: Categories,
    config: InferenceConfig,
    semantic_classes: SemanticClasses,
) -> tuple[Int[Tensor, "H W"], list[dict[str, Any]]]:
    """One map from instances and stuff, as Panoptic-FPN does: instances first, by falling score; stuff fills the rest.

    An instance more than `overlap` of which is taken is dropped. Where nothing is, the best stuff class is put; where
    the stuff path itself sees a thing, only if the probability of that stuff class reaches `stuff_threshold`. Stuff
    segments smaller than `min_stuff_area` of the image become void.
    """
    height, width = resampler.size
    cut = _cut(config)
    ids = torch.full((height, width), VOID, dtype=torch.int32, device=semantic.device)
    segments: list[dict[str, Any]] = []
    for label, score, logits in zip(
        candidates.labels.tolist(), candidates.scores.tolist(), candidates.logits, strict=True
    ):
        rows, columns = resampler.pixels(logits > cut)
        mask = resampler.window(logits[None], rows, columns)[0] > cut
        free = mask & (ids[rows, columns] == VOID)
        area, visible = int(mask.sum()), int(free.sum())
        if visible == 0 or visible < (1 - config.overlap) * area:
            continue
        ids[rows, columns][free] = len(segments) + 1
        segments.append(
            {
                "id": len(segments) + 1,
                "category_id": categories.all[label].id,
                "isthing": True,
                "score": score,
                "area": visible,
                "bbox": _box(free, rows.start, columns.start),
            }
        )
    first = first_stuff(semantic_classes, num_things=categories.num_things)
    stuff = _stuff(semantic_logits, semantic, first, categories.num_stuff, config)
    free = ids == VOID
    areas = torch.bincount(stuff[free & (stuff >= 0)], minlength=categories.num_stuff).tolist()
    for index, area in enumerate(areas):
        if area == 0 or area < config.min_stuff_area * height * width:
            continue
        identity = len(segments) + 1
        ids[free & (stuff == index)] = identity
        segments.append(
            {"id": identity, "category_id": categories.stuff[index].id, "isthing": False, "area": int(area)}
        )
    return ids, segments


def _stuff(
    logits: Float[Tensor, "N_s H W"], semantic: Int[Tensor, "H W"], first: int, stuff: int, config: InferenceConfig
) -> Int[Tensor, "H W"]:
    """The stuff class 0 … of each pixel, −1 where there is none; `first` of the outputs is stuff class 0."""
    best = logits[first : first + stuff].argmax(0)
    is_thing = (semantic < first) | (semantic >= first + stuff)
    if not is_thing.any():
        return best
    pixels = logits[:, is_thing]
    chosen = best[is_thing]
    probability = (pixels.gather(0, chosen[None] + first)[0] - pixels.logsumexp(0)).exp()
    best[is_thing] = torch.where(probability >= config.stuff_threshold, chosen, -1)
    return best


def components(
    prediction: Prediction, categories: Categories, config: InferenceConfig, semantic_classes: SemanticClasses
) -> tuple[np.ndarray, list[dict[str, Any]]]:
    """What the semantic output alone can say: each connected component (8 neighbours) of a thing class is an instance.

    Components smaller than `min_component_area` pixels become void, stuff is treated as in `merge`.
    """
    semantic = prediction.semantic
    stuff = categories.num_stuff
    first = first_stuff(semantic_classes, num_things=categories.num_things)
    thing_label = np.where(semantic < first, semantic, -1)
    if prediction.class_map is not None:  # one output for all things: the class head tells which
        thing_label = np.where(semantic == stuff, prediction.class_map, -1)
    ids = np.zeros(semantic.shape, dtype=np.int32)
    segments: list[dict[str, Any]] = []
    for label in np.unique(thing_label[thing_label >= 0]).tolist():
        count, parts, stats, _ = cv2.connectedComponentsWithStats(
            (thing_label == label).astype(np.uint8), connectivity=8, ltype=cv2.CV_32S
        )
        table = np.zeros(count, dtype=np.int32)
        for part in range(1, count):
            area = int(stats[part, cv2.CC_STAT_AREA])
            if area >= config.min_component_area:
                table[part] = len(segments) + 1
                segments.append({"id": len(segments) + 1, "category_id": categories.all[label].id, "area": area})
        ids += table[parts]
    for index in range(stuff):
        area_map = semantic == first + index
        area = int(area_map.sum())
        if area and area >= config.min_stuff_area * semantic.size:
            segments.append({"id": len(segments) + 1, "category_id": categories.stuff[index].id, "area": area})
            ids[area_map] = len(segments)
    return ids, segments


def _instances(
    candidates: Candidates, resampler: Resampler, categories: Categories, config: InferenceConfig
) -> list[dict[str, Any]]:
    cut = _cut(config)
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


def _box(mask: Bool[Tensor, "h w"], top: int, left: int) -> list[int]:
    """x, y, width, height of the pixels of a mask whose corner lies at (left, top)."""
    y, x = torch.nonzero(mask.any(1)), torch.nonzero(mask.any(0))
    return [left + int(x[0]), top + int(y[0]), int(x[-1] - x[0]) + 1, int(y[-1] - y[0]) + 1]


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
