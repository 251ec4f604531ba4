"""CondInst (Tian et al., ECCV 2020) with Panoptic-FPN's semantic branch: two paths on one pyramid.

FCOS detects things. At each location, a controller predicts the weights of a small dynamic network of three 1×1
convolutions. It computes the thing's mask from 8 shared channels and the coordinates relative to the location.

The integrated variant (§5.4) has no semantic branch: learned filters compute the stuff from the shared channels of the
masks. There may be more than 8 of these channels.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn
from torchvision.models.detection.fcos import FCOSClassificationHead
from torchvision.ops import Conv2dNormActivation, FeaturePyramidNetwork, generalized_box_iou_loss
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from spinet.baselines.fcos import ControllingHead, Grid, assign, detect, make_grid, to_boxes
from spinet.baselines.merge import Placed, segmentation
from spinet.baselines.panoptic_fpn import SemanticBranch
from spinet.baselines.system import Baseline, Segmentation, mean_cross_entropy, upsampled
from spinet.baselines.targets import BaselineTargets
from spinet.config import InferenceConfig
from spinet.config.baselines import CondInstConfig
from spinet.data.label_space import LabelSpace
from spinet.inference.mask_logits import MaskLogits
from spinet.inference.resample import Resampler
from spinet.model.backbone import Backbone
from spinet.model.layers import group_norm
from spinet.objective.losses import dice, focal

LEVELS = {"1": 8, "2": 16, "3": 32, "p6": 64, "p7": 128}  # torchvision's names of P3 … P7, and strides
SEMANTIC_LEVELS = ("0", "1", "2", "3")  # P2 … P5
MASK_STRIDE = 4
HIDDEN = 8  # channels between the dynamic convolutions


@dataclass
class CondInstOutputs:
    """Outputs for a batch."""

    grid: Grid
    classes: Float[Tensor, "B L N_t"]  # logits
    sides: Float[Tensor, "B L 4"]  # from a location to left, top, right, bottom of its thing, in strides
    centreness: Float[Tensor, "B L"]  # logits
    filters: Float[Tensor, "B L P"]  # weights and biases of the dynamic network, 169 for 8 channels
    shared: Float[Tensor, "B C h w"]  # the mask branch, stride 8
    semantic: Float[Tensor, "B N_s H W"]  # logits, stride 4


class CondInst(Baseline[CondInstOutputs]):
    """The network, its losses, and Panoptic-FPN's merge."""

    def __init__(
        self, *, backbone: Backbone, classes: LabelSpace, channels: int, num_convs: int, config: CondInstConfig
    ):
        super().__init__(backbone=backbone, classes=classes, divisor=max(LEVELS.values()))
        self.pyramid = FeaturePyramidNetwork(
            backbone.channels, channels, extra_blocks=LastLevelP6P7(channels, channels)
        )
        outputs = max(1, classes.num_things)  # one unused class if there are no things
        self.class_head = FCOSClassificationHead(channels, 1, outputs, num_convs, norm_layer=group_norm)
        self.box_head = ControllingHead(channels, num_convs, sum(map(sum, dynamic_layers(config.channels))))
        self.mask_branch = MaskBranch(channels=channels, outputs=config.channels)
        if config.integrated:
            self.stuff_filters = nn.Conv2d(config.channels, classes.num_outputs, 1)
        else:
            self.semantic_branch = SemanticBranch(channels=channels, outputs=classes.num_outputs)
        self.config = config

    def forward(self, images: UInt8[Tensor, "B 3 H W"]) -> CondInstOutputs:
        c2, c3, c4, c5 = self.backbone(self.normalised(images))
        pyramid = self.pyramid({"0": c2, "1": c3, "2": c4, "3": c5})
        levels = [pyramid[name] for name in LEVELS]
        sides, centreness, filters = self.box_head(levels)
        shared = self.mask_branch(levels[:3])
        if self.config.integrated:
            semantic = _doubled(self.stuff_filters(shared))
        else:
            semantic = self.semantic_branch([pyramid[name] for name in SEMANTIC_LEVELS])
        return CondInstOutputs(
            grid=make_grid(levels, list(LEVELS.values())),
            classes=self.class_head(levels).float()[..., : self.classes.num_things],
            sides=sides.float(),
            centreness=centreness[..., 0].float(),
            filters=filters.float(),
            shared=shared.float(),
            semantic=semantic,
        )

    def losses(self, outputs: CondInstOutputs, targets: BaselineTargets) -> dict[str, Tensor]:
        config, grid = self.config, outputs.grid
        # the thing assigned to each location, numbered over the batch; −1 for none
        first = torch.tensor([0, *(len(image.labels) for image in targets.images)]).cumsum(0).tolist()
        matched = [assign(grid, image, config) for image in targets.images]
        matched = torch.stack([m + start * (m >= 0) for m, start in zip(matched, first, strict=False)])
        image, location = torch.nonzero(matched >= 0, as_tuple=True)
        thing = matched[image, location]
        labels = torch.cat([truth.labels for truth in targets.images])[thing]
        boxes = torch.cat([truth.boxes for truth in targets.images])[thing]
        positives = max(len(thing), 1)

        one_hot = torch.zeros_like(outputs.classes)
        one_hot[image, location, labels] = 1
        sides = (boxes - grid.positions[location].repeat(1, 2)) * boxes.new_tensor([-1, -1, 1, 1])
        short, long = torch.stack([sides[:, 0::2], sides[:, 1::2]]).aminmax(dim=2)
        centreness = (short / long).prod(0).sqrt()
        found = to_boxes(grid.positions[location], outputs.sides[image, location] * grid.strides[location, None])
        overlap = generalized_box_iou_loss(found, boxes) * centreness
        quality = F.binary_cross_entropy_with_logits(outputs.centreness[image, location], centreness, reduction="sum")
        semantic = upsampled(outputs.semantic, targets.size, MASK_STRIDE)
        losses = {
            "class": focal(outputs.classes, one_hot).sum() / positives,
            "box": overlap.sum() / centreness.sum().clamp(min=1e-6),
            "centreness": quality / positives,
            "mask": self._mask_loss(outputs, targets, image, location, thing),
        }
        losses = {name: config.instances * loss for name, loss in losses.items()}
        return losses | {"semantic": config.semantic * mean_cross_entropy(semantic, targets.semantic)}

    def _mask_loss(
        self, outputs: CondInstOutputs, targets: BaselineTargets, image: Tensor, location: Tensor, thing: Tensor
    ) -> Tensor:
        """Mean dice loss of the masks of at most `samples` locations, in float32."""
        chosen = torch.randperm(len(thing))[: self.config.samples].to(thing.device)
        half = MASK_STRIDE // 2
        truth = torch.cat([t.masks[:, half::MASK_STRIDE, half::MASK_STRIDE] for t in targets.images])
        total = 0 * (outputs.filters.sum() + outputs.shared.sum())  # zero gradients, if there are no locations
        for index in range(len(targets.images)):
            mine = chosen[image[chosen] == index]
            if len(mine):
                with torch.autocast(thing.device.type, enabled=False):
                    probability = self.masks(outputs, index, location[mine]).sigmoid()
                    total = total + dice(probability.flatten(1), truth[thing[mine]].flatten(1).float()).sum()
        return total / max(len(chosen), 1)

    def masks(self, outputs: CondInstOutputs, index: int, locations: Int[Tensor, "n"]) -> Float[Tensor, "n H W"]:
        """Mask logits at stride 4 of the things at n locations of an image."""
        grid = outputs.grid
        sizes = torch.tensor([*self.config.sizes, 2 * self.config.sizes[-1]], device=locations.device)
        origins, units = grid.positions[locations], sizes[grid.level[locations]]
        if not self.config.relative:  # the same for all locations: from the corner of the crop
            origins, units = torch.zeros_like(origins), sizes[-1:].expand_as(units)
        logits = draw(outputs.shared[index], outputs.filters[index, locations], origins, units)
        return _doubled(logits[:, None])[:, 0]

    def postprocess(
        self, outputs: CondInstOutputs, size: tuple[int, int], config: InferenceConfig, *, instances: bool
    ) -> Segmentation:
        locations, labels, scores = detect(
            outputs.grid, outputs.classes[0], outputs.centreness[0], outputs.sides[0], self.config, config
        )
        if not instances:
            confident = scores >= self.config.threshold
            locations, labels, scores = locations[confident], labels[confident], scores[confident]
        resampler = Resampler(network_size=size, size=size, device=scores.device, stride=MASK_STRIDE)
        cut = float(torch.tensor(config.mask_threshold).logit())
        masks = MaskLogits.of(self.masks(outputs, 0, locations))
        found = zip(labels.tolist(), scores.tolist(), resampler.windows(masks, cut), strict=True)
        things = [
            Placed(label, score, window, resampler.one(masks, number, window) > cut)
            for number, (label, score, window) in enumerate(found)
        ]
        semantic = upsampled(outputs.semantic, size, MASK_STRIDE)[0].argmax(0)
        return segmentation(
            things, semantic, self.classes, config, threshold=self.config.threshold, instances=instances
        )


class MaskBranch(nn.Module):
    """Computes the shared channels of all masks, at stride 8, from P3, P4, P5."""

    def __init__(self, *, channels: int, outputs: int):
        super().__init__()
        width = channels // 2  # 128 of 256
        self.refine = nn.ModuleList([Conv2dNormActivation(channels, width) for _ in range(3)])
        self.tower = nn.Sequential(
            *(Conv2dNormActivation(width, width) for _ in range(4)), nn.Conv2d(width, outputs, 1)
        )

    def forward(self, levels: list[Float[Tensor, "B D h w"]]) -> Float[Tensor, "B C H W"]:
        size = levels[0].shape[-2:]
        refined = [refine(level) for refine, level in zip(self.refine, levels, strict=True)]
        return self.tower(sum(F.interpolate(r, size=size, mode="bilinear", align_corners=False) for r in refined))


def dynamic_layers(channels: int) -> list[tuple[int, int]]:
    """Numbers of weights and biases in each layer of the dynamic network, for that many shared channels."""
    return [(before * after, after) for before, after in pairwise((channels + 2, HIDDEN, HIDDEN, 1))]


def draw(
    shared: Float[Tensor, "C h w"],
    filters: Float[Tensor, "n P"],
    positions: Float[Tensor, "n 2"],
    sizes: Float[Tensor, "n"],
) -> Float[Tensor, "n h w"]:
    """Applies each filter's dynamic network to the shared channels: three 1×1 convolutions with ReLU in between.

    Args:
        shared: shared channels of one image, stride 8.
        filters: weights of the three layers, then their biases.
        positions: x, y of the origin of each filter's coordinates, in pixels; usually its location.
        sizes: unit of the coordinates, in pixels.
    """
    height, width = shared.shape[-2:]
    y, x = ((torch.arange(n, device=shared.device) + 0.5) * 8 for n in (height, width))
    relative_x = ((positions[:, :1] - x) / sizes[:, None])[:, None].expand(-1, height, -1)
    relative_y = ((positions[:, 1:] - y) / sizes[:, None])[:, :, None].expand(-1, -1, width)
    out = torch.cat([torch.stack([relative_x, relative_y], 1), shared.expand(len(filters), -1, -1, -1)], 1).flatten(2)
    weights, biases = zip(*dynamic_layers(len(shared)), strict=True)
    layers = filters.split([*weights, *biases], dim=1)
    for index, (weight, bias) in enumerate(zip(layers[:3], layers[3:], strict=True)):
        out = torch.baddbmm(bias[:, :, None], weight.unflatten(1, (bias.shape[1], -1)), out.relu() if index else out)
    return out.view(-1, height, width)


def _doubled(maps: Float[Tensor, "B C h w"]) -> Float[Tensor, "B C H W"]:
    return F.interpolate(maps, scale_factor=2, mode="bilinear", align_corners=False)
