"""Mask R-CNN with a feature pyramid, from torchvision: the common part of Panoptic-FPN and UPSNet."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn
from torchvision.models.detection import MaskRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.rpn import RPNHead
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from spinet.baselines.merge import Placed, paste
from spinet.baselines.system import Baseline
from spinet.baselines.targets import BaselineTargets, as_torchvision
from spinet.config import InferenceConfig
from spinet.config.baselines import PanopticFPNConfig, UPSNetConfig
from spinet.data.label_space import LabelSpace
from spinet.model.backbone import Backbone

LEVELS = ("0", "1", "2", "3")  # torchvision's names of P2 … P5, at strides 4 … 32
STRIDES = (4, 8, 16, 32, 64)  # of P2 … P6

DetectorConfig = TypeVar("DetectorConfig", PanopticFPNConfig, UPSNetConfig)


@dataclass
class Detections:
    """Mask R-CNN's detections in an image, sorted by score."""

    labels: Int[Tensor, "n"]  # thing class
    scores: Float[Tensor, "n"]
    boxes: Float[Tensor, "n 4"]  # left, top, right, bottom, pixels
    masks: Float[Tensor, "n 28 28"]  # probability

    def above(self, threshold: float) -> Detections:
        """Detections with a score of at least `threshold`."""
        kept = self.scores >= threshold
        return Detections(self.labels[kept], self.scores[kept], self.boxes[kept], self.masks[kept])


@dataclass
class DetectorOutputs:
    """Outputs for a batch."""

    images: Float[Tensor, "B 3 H W"]  # normalised and padded
    pyramid: dict[str, Float[Tensor, "B D h w"]]  # P2 … P6
    semantic: Float[Tensor, "B N_s h w"]  # logits at stride 4
    detections: list[Detections]  # none in training


class Detector(Baseline[DetectorOutputs], Generic[DetectorConfig]):
    """Backbone, pyramid, region proposals, heads for boxes and masks, and a semantic head from the subclass.

    All other numbers are torchvision's, which are Mask R-CNN's. The heads have no norm. With 256 channels in the
    pyramid the box head has 1024.

    Args:
        score_threshold, max_detections: minimum score and maximum number of things in inference.
    """

    def __init__(
        self,
        *,
        backbone: Backbone,
        classes: LabelSpace,
        channels: int,
        score_threshold: float,
        max_detections: int,
        config: DetectorConfig,
    ):
        super().__init__(backbone=backbone, classes=classes, divisor=max(STRIDES))
        self.config = config
        semantic_head = self.make_semantic_head(channels, classes.num_outputs)
        pyramid = FeaturePyramidNetwork(backbone.channels, channels, extra_blocks=LastLevelMaxPool())
        pyramid.out_channels = channels  # pyright: ignore[reportArgumentType]  # read by torchvision
        anchors = Float32Anchors(
            sizes=tuple((round(config.anchor_scale * stride),) for stride in STRIDES),
            aspect_ratios=((0.5, 1.0, 2.0),) * len(STRIDES),
        )
        detector = MaskRCNN(
            pyramid,
            rpn_anchor_generator=anchors,
            rpn_head=Float32RPNHead(channels, anchors.num_anchors_per_location()[0]),
            box_head=TwoMLPHead(channels * 7**2, 4 * channels),
            box_predictor=Float32Predictor(4 * channels, classes.num_things + 1),
            box_score_thresh=score_threshold,
            box_detections_per_img=max_detections,
            box_batch_size_per_image=config.rois,
            rpn_post_nms_top_n_test=max(1000, max_detections),
            mask_head=MaskRCNNHeads(channels, (channels,) * 4, 1),
            mask_predictor=MaskRCNNPredictor(channels, channels, classes.num_things + 1),
        )
        self.pyramid, self.rpn, self.roi_heads = detector.backbone, detector.rpn, detector.roi_heads
        self.semantic_head = semantic_head

    @abstractmethod
    def make_semantic_head(self, channels: int, outputs: int) -> nn.Module:
        """A module that maps P2 … P5 with `channels` channels to `outputs` logits at stride 4."""

    def forward(self, images: UInt8[Tensor, "B 3 H W"]) -> DetectorOutputs:
        x = self.normalised(images)
        pyramid = self.pyramid(dict(zip(LEVELS, self.backbone(x), strict=True)))
        semantic = self.semantic_head([pyramid[level] for level in LEVELS])
        return DetectorOutputs(x, pyramid, semantic, [] if self.training else self.detect(x, pyramid))

    def detect(self, x: Float[Tensor, "B 3 H W"], pyramid: dict[str, Tensor]) -> list[Detections]:
        """The things in each image, after non-maximum suppression within each class."""
        sizes = [(x.shape[2], x.shape[3])] * len(x)
        proposals, _ = self.rpn(ImageList(x, sizes), pyramid)
        found, _ = self.roi_heads(pyramid, proposals, sizes)
        return [Detections(f["labels"] - 1, f["scores"], f["boxes"], f["masks"][:, 0].float()) for f in found]

    def mask_logits(
        self, outputs: DetectorOutputs, index: int, boxes: Float[Tensor, "n 4"], labels: Int[Tensor, "n"]
    ) -> Float[Tensor, "n 28 28"]:
        """Mask logits of the things in given boxes of an image, from the mask head."""
        heads: Any = self.roi_heads
        pyramid = {name: level[index : index + 1] for name, level in outputs.pyramid.items()}
        size = (outputs.images.shape[2], outputs.images.shape[3])
        logits = heads.mask_predictor(heads.mask_head(heads.mask_roi_pool(pyramid, [boxes], [size])))
        return logits[torch.arange(len(labels), device=labels.device), labels + 1].float()

    def instance_losses(self, outputs: DetectorOutputs, targets: BaselineTargets) -> dict[str, Tensor]:
        """Objectness and boxes of the proposals; classes, boxes and masks of the things."""
        x, pyramid = outputs.images, outputs.pyramid
        sizes = [(x.shape[2], x.shape[3])] * len(x)
        truth = [as_torchvision(image) for image in targets.images]
        proposals, losses = self.rpn(ImageList(x, sizes), pyramid, truth)
        _, more = self.roi_heads(pyramid, proposals, sizes, truth)
        return {name.removeprefix("loss_"): loss for name, loss in (losses | more).items()}


def placed(detections: Detections, size: tuple[int, int], config: InferenceConfig) -> list[Placed]:
    """Detections as masks in the image of height and width `size`."""
    result = []
    for label, score, box, mask in zip(
        detections.labels.tolist(), detections.scores.tolist(), detections.boxes.tolist(), detections.masks, strict=True
    ):
        window, probability = paste(mask, box, size)
        result.append(Placed(label, score, window, probability >= config.mask_threshold))
    return result


class Float32Anchors(AnchorGenerator):
    """Returns float32 also under mixed precision: bfloat16 has 8 bits, too few for the coordinates of a box."""

    def forward(self, image_list: ImageList, feature_maps: list[Tensor]) -> list[Tensor]:
        return super().forward(image_list, [level[:, :1].float() for level in feature_maps])


class Float32RPNHead(RPNHead):
    """Returns float32 also under mixed precision."""

    def forward(self, x: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        objectness, deltas = super().forward(x)
        return [level.float() for level in objectness], [level.float() for level in deltas]


class Float32Predictor(FastRCNNPredictor):
    """Returns float32 also under mixed precision."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        scores, deltas = super().forward(x)
        return scores.float(), deltas.float()
