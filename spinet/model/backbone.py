"""§5.2 Backbone: ResNet-50 whose 7×7 stem is replaced by three 3×3 convolutions, from timm."""

from __future__ import annotations

import logging
from typing import Any, Literal

import timm
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torchvision.ops import DeformConv2d

from spinet.layers import group_norm

log = logging.getLogger(__name__)

Norm = Literal["frozen", "batch", "group"]


class Backbone(nn.Module):
    """Image to C2, C3, C4, C5 at strides 4, 8, 16, 32.

    name: any timm model with these four feature maps; "resnet50c" is the paper's (stem 32-32-64).
    norm: "frozen" keeps the pretrained batch statistics and affine terms (§5.2); "batch" trains them; "group" replaces
        batch by group normalisation.
    pretrained: load ImageNet weights. Where they cannot be had, a warning is logged, `weights` says "none" and
        "frozen" becomes "batch": frozen random statistics do not train.
    freeze_stages: number of parts, from the stem on, that stay as they are.
    deformable: the 3×3 convolutions of the last three stages become deformable (Table 1, last row).
    output_stride: of C5; below 32 (8 or 16) the last stages are dilated instead.

    Attributes:
        channels: of C2 … C5.
        weights: where the initial weights come from, "none" if from nowhere.
        norm: the norm in use.
    """

    def __init__(
        self,
        *,
        name: str = "resnet50c",
        norm: Norm = "frozen",
        pretrained: bool = True,
        freeze_stages: int = 0,
        deformable: bool = False,
        output_stride: int = 32,
    ):
        super().__init__()
        options: dict[str, Any] = {"features_only": True, "out_indices": (1, 2, 3, 4)}
        if norm == "group":
            options["norm_layer"] = group_norm
        if output_stride < 32:
            options["output_stride"] = output_stride  # not every timm model knows it
        self.weights = "none"
        body: Any = None
        if pretrained and norm != "group":
            try:
                body = timm.create_model(name, pretrained=True, **options)
                self.weights = str(body.pretrained_cfg.get("hf_hub_id") or name)
            except Exception as error:  # whatever the hub's client raises: no network, no such file, refused
                log.warning("no ImageNet weights for %s (%s): training from scratch", name, str(error).split("\n")[0])
        self.body: Any = body or timm.create_model(name, pretrained=False, **options)
        self.norm: Norm = "batch" if norm == "frozen" and self.weights == "none" else norm
        self.channels: list[int] = self.body.feature_info.channels()
        if deformable:
            for stage in ("layer2", "layer3", "layer4"):
                make_deformable(self.body.get_submodule(stage))
        parts = (("conv1", "bn1"), ("layer1",), ("layer2",), ("layer3",), ("layer4",))[:freeze_stages]
        self.still = [name for part in parts for name in part]
        for name in self.still:
            self.body.get_submodule(name).requires_grad_(False)
        if self.norm == "frozen":
            for module in self._batch_norms():
                module.requires_grad_(False)

    def _batch_norms(self) -> list[nn.BatchNorm2d]:
        return [module for module in self.body.modules() if isinstance(module, nn.BatchNorm2d)]

    def train(self, mode: bool = True) -> Backbone:
        super().train(mode)
        if self.norm == "frozen":
            for module in self._batch_norms():
                module.eval()
        for name in self.still:
            self.body.get_submodule(name).eval()  # batch statistics stay too
        return self

    def forward(self, image: Float[Tensor, "B 3 H W"]) -> list[Float[Tensor, "B C h w"]]:
        return self.body(image)


class Deformable(nn.Module):
    """A convolution whose taps are moved by offsets that a second convolution predicts; it starts as it was."""

    def __init__(self, conv: nn.Conv2d):
        super().__init__()
        kernel, stride, padding = conv.kernel_size[0], conv.stride[0], conv.kernel_size[0] // 2
        self.offset = nn.Conv2d(conv.in_channels, 2 * kernel**2, kernel, stride, padding)
        nn.init.zeros_(self.offset.weight)
        nn.init.zeros_(self.offset.bias)  # pyright: ignore[reportArgumentType]
        self.conv = DeformConv2d(conv.in_channels, conv.out_channels, kernel, stride, padding, bias=False)
        self.conv.weight = conv.weight  # pyright: ignore[reportAttributeAccessIssue]
        self.conv.bias = conv.bias  # pyright: ignore[reportAttributeAccessIssue]

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):  # torchvision's operator has no mixed precision on CPU
            return self.conv(x.float(), self.offset(x.float())).to(x.dtype)


def make_deformable(stage: nn.Module) -> None:
    """Replaces every 3×3 convolution under `stage` by a deformable one with the same weights."""
    for name, child in list(stage.named_modules()):
        if isinstance(child, nn.Conv2d) and child.kernel_size == (3, 3):
            stage.set_submodule(name, Deformable(child))
