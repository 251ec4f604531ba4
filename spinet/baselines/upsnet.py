"""UPSNet (Xiong et al., CVPR 2019): Mask R-CNN, a deformable semantic head, and a panoptic head without parameters."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from torchvision.ops import nms, roi_align

from spinet.baselines.mask_rcnn import LEVELS, STRIDES, Detections, Detector, DetectorOutputs, placed
from spinet.baselines.merge import Placed, add_stuff, paste
from spinet.baselines.system import Instance, Segmentation, mean_cross_entropy, upsampled
from spinet.baselines.targets import BaselineTargets, ImageTruth
from spinet.config import InferenceConfig
from spinet.config.baselines import UPSNetConfig
from spinet.data.label_space import IGNORE, LabelSpace
from spinet.model.backbone import Deformable


class UPSNet(Detector[UPSNetConfig]):
    """The network, its losses, and the panoptic head, which training and inference use."""

    def make_semantic_head(self, channels: int, outputs: int) -> nn.Module:
        return DeformableHead(channels=channels, outputs=outputs, layers=self.config.semantic_layers)

    def losses(self, outputs: DetectorOutputs, targets: BaselineTargets) -> dict[str, Tensor]:
        config = self.config
        losses = {name: config.instances * loss for name, loss in self.instance_losses(outputs, targets).items()}
        logits = upsampled(outputs.semantic, targets.size, STRIDES[0])
        losses["semantic"] = config.semantic * mean_cross_entropy(logits, targets.semantic)
        panoptic = [self._panoptic_loss(outputs, targets, index) for index in range(len(targets.images))]
        losses["panoptic"] = config.panoptic * torch.stack(panoptic).mean()
        if config.roi:
            losses["roi"] = config.roi * self._roi_loss(outputs, targets)
        return losses

    def _panoptic_loss(self, outputs: DetectorOutputs, targets: BaselineTargets, index: int) -> Tensor:
        """Cross entropy over stuff, the things given to the head, and "unknown" for other things, at stride 4."""
        image = targets.images[index]
        shown = torch.randperm(len(image.labels))[: max(1, int(self.config.keep_boxes * len(image.labels)))]
        shown = shown.to(image.labels.device)
        boxes, labels = image.boxes[shown], image.labels[shown]
        masks = self.mask_logits(outputs, index, boxes, labels)
        logits = panoptic_logits(outputs.semantic[index].float(), masks, boxes / STRIDES[0], labels, self.classes)
        truth = panoptic_truth(image, targets.semantic[index], shown, self.classes)
        step = STRIDES[0]
        return mean_cross_entropy(logits[None], truth[None, step // 2 :: step, step // 2 :: step])

    def _roi_loss(self, outputs: DetectorOutputs, targets: BaselineTargets) -> Tensor:
        """Cross entropy on 28 × 28 points in the box of each thing, so that small and large things count equally."""
        boxes = [image.boxes for image in targets.images]
        logits = roi_align(outputs.semantic.float(), boxes, 28, 1 / STRIDES[0], aligned=True)
        step = (torch.arange(28, device=logits.device) + 0.5) / 28
        labels = []
        for semantic, (left, top, right, bottom) in zip(targets.semantic, (b.t() for b in boxes), strict=True):
            y, x = (
                (low[:, None] + step * (high - low)[:, None]).long() for low, high in ((top, bottom), (left, right))
            )
            labels.append(semantic[y[:, :, None], x[:, None]])
        return mean_cross_entropy(logits, torch.cat(labels))

    def postprocess(
        self, outputs: DetectorOutputs, size: tuple[int, int], config: InferenceConfig, *, instances: bool
    ) -> Segmentation:
        logits = upsampled(outputs.semantic, size, STRIDES[0])[0]
        semantic = logits.argmax(0)
        detections = outputs.detections[0]
        found = [thing.whole(size) for thing in placed(detections, size, config)] if instances else []
        detections = detections.above(self.config.threshold)
        kept = self._kept(detections, placed(detections, size, config), size)
        labels, scores = detections.labels[kept], detections.scores[kept]
        masks = detections.masks[kept].logit(eps=1e-6)
        best = panoptic_logits(logits, masks, detections.boxes[kept], labels, self.classes).argmax(0)
        return self._segments(best, labels, scores, semantic, config, found)

    def _kept(self, detections: Detections, things: list[Placed], size: tuple[int, int]) -> Int[Tensor, "n"]:
        """Indices of detections that duplicate neither a box of any class nor a mask of the same class."""
        single = nms(detections.boxes, detections.scores, self.config.nms)
        taken: dict[int, Tensor] = {}
        kept = []
        for index in single.tolist():
            thing = things[index]
            canvas = taken.setdefault(thing.label, torch.zeros(size, dtype=torch.bool, device=thing.mask.device))
            area, covered = thing.mask.sum(), (thing.mask & canvas[thing.window]).sum()
            if area > 0 and covered <= self.config.removal * area:
                kept.append(index)
                canvas[thing.window] |= thing.mask
        return torch.tensor(kept, dtype=torch.long, device=single.device)

    def _segments(
        self,
        best: Int[Tensor, "H W"],
        things: Int[Tensor, "n"],
        confidences: Float[Tensor, "n"],
        semantic: Int[Tensor, "H W"],
        config: InferenceConfig,
        found: list[Instance],
    ) -> Segmentation:
        """Makes the map. A thing becomes stuff if the semantic head labels at least half of it as one stuff class."""
        classes = self.classes
        stuff = best.where(best < classes.num_stuff, -1)
        ids = torch.zeros_like(best, dtype=torch.int32)
        labels: list[int] = []
        scores: list[float | None] = []
        for index, (label, score) in enumerate(zip(things.tolist(), confidences.tolist(), strict=True)):
            mask = best == classes.num_stuff + index
            votes = torch.bincount(semantic[mask], minlength=classes.num_outputs)
            winner, count = int(votes.argmax()), int(votes.max())
            if count == 0:
                continue
            if winner >= classes.first_stuff and 2 * count >= int(votes.sum()):
                stuff[mask] = winner - classes.first_stuff
                continue
            labels.append(label)
            scores.append(score)
            ids[mask] = len(labels)
        add_stuff(ids, labels, scores, stuff, classes, config)
        return Segmentation(ids, labels, scores, semantic, found)


class DeformableHead(nn.Module):
    """Applies the same deformable convolutions to P2 … P5, concatenates them at stride 4, and classifies."""

    def __init__(self, *, channels: int, outputs: int, layers: int):
        super().__init__()
        width = channels // 2  # 128 of 256
        widths = [channels] * (layers - 1) + [width] * 2
        convs = []
        for before, after in pairwise(widths):
            conv = nn.Conv2d(before, after, 3, padding=1)
            nn.init.kaiming_normal_(conv.weight)
            nn.init.zeros_(conv.bias)  # pyright: ignore[reportArgumentType]
            convs += [Deformable(conv), nn.ReLU(inplace=True)]
        self.subnet = nn.Sequential(*convs)
        self.score = nn.Conv2d(len(LEVELS) * width, outputs, 1)
        nn.init.normal_(self.score.weight, std=0.01)
        nn.init.zeros_(self.score.bias)  # pyright: ignore[reportArgumentType]

    def forward(self, levels: list[Float[Tensor, "B D h w"]]) -> Float[Tensor, "B N_s H W"]:
        size = levels[0].shape[-2:]
        features = [self.subnet(level) for level in levels]
        return self.score(torch.cat([F.interpolate(f, size=size, mode="bilinear") for f in features], dim=1))


def panoptic_logits(
    semantic: Float[Tensor, "N_s H W"],
    masks: Float[Tensor, "n 28 28"],
    boxes: Float[Tensor, "n 4"],
    labels: Int[Tensor, "n"],
    classes: LabelSpace,
) -> Float[Tensor, "m H W"]:
    """Logits of every stuff class, of n things, and of "unknown": m = stuff classes + n + 1.

    A thing's logit is the semantic logit of its class plus its mask's logit, resized to its box; outside the box it is
    0. The logit of "unknown" is the largest semantic logit of all thing classes minus the largest one of the given
    things.

    Without thing classes there is no "unknown".

    Args:
        semantic: logits of all classes.
        masks: mask logits.
        boxes: left, top, right, bottom, in pixels of `semantic`.
    """
    size = (semantic.shape[1], semantic.shape[2])
    crops, things = [], []
    for mask, box, label in zip(masks, boxes.tolist(), labels.tolist(), strict=True):
        (rows, columns), pasted = paste(mask, box, size)
        around = (columns.start, size[1] - columns.stop, rows.start, size[0] - rows.stop)
        crop = semantic[label, rows, columns]
        crops.append(F.pad(crop, around))
        things.append(F.pad(crop + pasted, around))
    stuff = semantic[classes.first_stuff :]
    if not classes.num_things:
        return stuff
    known = torch.stack(crops).amax(0) if crops else torch.zeros_like(semantic[0])
    unknown = semantic[: classes.num_things].amax(0) - known
    return torch.cat([stuff, *(thing[None] for thing in things), unknown[None]])


def panoptic_truth(
    image: ImageTruth, semantic: Int[Tensor, "H W"], shown: Int[Tensor, "n"], classes: LabelSpace
) -> Int[Tensor, "H W"]:
    """Target index among the panoptic logits: stuff, a given thing, "unknown" for other things, or IGNORE."""
    stuff = semantic - classes.first_stuff
    truth = torch.where(semantic == IGNORE, IGNORE, torch.where(stuff >= 0, stuff, classes.num_stuff + len(shown)))
    for index, mask in enumerate(image.masks[shown]):
        truth[mask] = classes.num_stuff + index
    return truth
