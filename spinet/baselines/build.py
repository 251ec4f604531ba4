"""Build the network of a baseline from a configuration."""

from __future__ import annotations

from typing import Any

from spinet.baselines.condinst import CondInst
from spinet.baselines.panoptic_deeplab import PanopticDeepLab
from spinet.baselines.panoptic_fpn import PanopticFPN
from spinet.baselines.system import BaselineModel, with_group_norm
from spinet.baselines.upsnet import UPSNet
from spinet.config import Config, ConfigError
from spinet.config.baselines import CondInstConfig, PanopticDeepLabConfig, PanopticFPNConfig, UPSNetConfig
from spinet.data import Categories
from spinet.data.label_space import LabelSpace
from spinet.model.backbone import Backbone
from spinet.model.layers import set_group_channels


def build_baseline(config: Config, categories: Categories, *, weights_follow: bool = False) -> BaselineModel:
    """An untrained model of the system that `config.baseline` names, as wide as `model.fpn_channels`.

    With `model.norm` "group" all layers have group norm. Otherwise `model.norm` applies only to the backbone, and batch
    norm in the system's own layers, if its authors use it, is trained.

    Raises:
        ConfigError: the system needs all semantic classes, and `objective.semantic_classes` is not "all"; or
            Panoptic-DeepLab, which dilates the backbone's last stage, gets a deformable one.
        BackboneError: the backbone does not fit, see `Backbone`.
    """
    model, system = config.model, config.baseline
    assert system is not None
    kind = config.objective.semantic_classes
    if system.EVERY_CLASS and kind != "all":
        raise ConfigError(f"objective.semantic_classes is {kind!r}: {system.system} needs 'all'")
    classes = LabelSpace.of(kind, categories)
    dilated = isinstance(system, PanopticDeepLabConfig)
    if dilated and model.deformable:
        raise ConfigError("model.deformable: panoptic_deeplab dilates the backbone's last stage instead")
    backbone = Backbone(
        name=model.backbone,
        norm=model.norm,
        pretrained=model.pretrained,
        weights_follow=weights_follow,
        freeze_stages=model.freeze_stages,
        deformable=model.deformable,
        output_stride=16 if dilated else 32,
    )
    parts: dict[str, Any] = {"backbone": backbone, "classes": classes, "channels": model.fpn_channels}
    found = {"score_threshold": config.inference.ap_threshold, "max_detections": config.inference.top}
    match system:
        case PanopticFPNConfig():
            network = PanopticFPN(**parts, **found, config=system)
        case PanopticDeepLabConfig():
            network = PanopticDeepLab(**parts, config=system)
        case UPSNetConfig():
            network = UPSNet(**parts, **found, config=system)
        case CondInstConfig():
            network = CondInst(**parts, num_convs=model.head_convs, config=system)
    if model.norm == "group":
        with_group_norm(network)
    if model.group_channels is not None:
        set_group_channels(network, model.group_channels)
    return BaselineModel(network, config, categories)
