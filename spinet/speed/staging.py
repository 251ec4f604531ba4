"""§5.3 Outputs like those of a trained network, for a scene with exactly N things, to time post-processing.

The time of post-processing, and of the heads of a two-stage detector, depends on the detected things, and an untrained
network detects noise. `stage` replaces the outputs of the heads by those of a trained network after they are computed.
Every layer still runs, and each system's own rules read the staged outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from torchvision.ops import roi_align

from spinet.baselines.condinst import HIDDEN, CondInst, CondInstOutputs, dynamic_layers
from spinet.baselines.fcos import assign
from spinet.baselines.mask_rcnn import Detector
from spinet.baselines.panoptic_deeplab import DeepLabOutputs, PanopticDeepLab, heat_map, offsets
from spinet.baselines.targets import BaselineTargetBuilder, ImageTruth
from spinet.data.label_space import IGNORE
from spinet.data.segments import Sample
from spinet.inference.predict import run_network
from spinet.model.panoptic_feature import PanopticFeatureGenerator
from spinet.model.spinet import Features, SPINet
from spinet.speed.shortcuts import DeconvolvingSingleShot, FiltersOnDemand
from spinet.system import Model

SURE = 8.0
"""Logit for true; its negative for false."""

FIRES = 3
"""Number of the finest levels on which SPINet's class head detects each thing: two of three candidates are duplicates.
The weights in the package have about the same share of duplicates."""

SHARPNESS, MATCH, NOTHING = 32.0, 0.75, 1 / 3
"""A mask's logit is SHARPNESS · (code of the thing · code at the cell − MATCH · m). m is 1 in cells of things and
NOTHING in other cells. So the logit is SURE where the codes are equal, and −SURE in cells without a thing."""


@contextmanager
def stage(model: Model, sample: Sample) -> Iterator[None]:
    """Inside this context, `predict` finds the things of `sample` in its image, in realistic time.

    The network runs once before, to get the shapes of its outputs.

    Args:
        model: any system, trained or not, with the classes of `sample`; `input.test_scale` is None.
        sample: an image without crowds.
    """
    network = model.network
    build = BaselineTargetBuilder(space=model.space, divisor=network.divisor)
    targets = build(sample.segment_map[None].to(model.device), [sample.labels], [sample.crowd], [0])
    truth = targets.images[0]
    labels = _in_cells(targets.semantic[0], 4)
    with ExitStack() as restored, torch.inference_mode():
        if isinstance(network, Detector):
            hooks = _stage_detector(network, truth, labels)
        else:
            outputs: Any = run_network(model, sample.pixels).features  # type depends on the system
            match network:
                case SPINet():
                    staged = _spinet(network, outputs, truth, targets.semantic[0])
                    restored.callback(_plant(network))
                    hooks = [network.filter_sampling.fc.register_forward_hook(_unchanged)]
                case PanopticDeepLab():
                    staged, hooks = _deeplab(network, outputs, truth, labels), []
                case CondInst():
                    staged, hooks = _condinst(network, outputs, truth, labels), []
            hooks.append(network.register_forward_hook(lambda *_: staged))
        for hook in hooks:
            restored.callback(hook.remove)
        yield


def _in_cells(values: Tensor, stride: int) -> Tensor:
    """The values, [H, W], at the centre of each cell."""
    return values[stride // 2 :: stride, stride // 2 :: stride]


def _logits(labels: Tensor, outputs: int) -> Tensor:
    """Logits, [1, outputs, h, w], of labels; cells without a label get the first class."""
    one_hot = F.one_hot(labels.where(labels != IGNORE, 0), outputs)
    return (SURE * (2.0 * one_hot - 1)).permute(2, 0, 1)[None]


def _like(output: Tensor, values: Tensor) -> Tensor:
    """The values in the type and memory format of the network's output."""
    return torch.empty_like(output).copy_(values)


def _numbers(truth: ImageTruth, stride: int) -> Tensor:
    """The number of the thing in each cell, from 1, 0 for none."""
    numbers = torch.zeros_like(truth.known, dtype=torch.long)
    for number, mask in enumerate(truth.masks, start=1):
        numbers[mask] = number
    return _in_cells(numbers, stride)


def _codes(truth: ImageTruth, length: int) -> Tensor:
    """A code per thing, [n + 1, length]: a random unit vector, then m. The first row is for cells without a thing."""
    random = torch.Generator().manual_seed(0)
    codes = F.normalize(torch.randn(len(truth.labels), length - 1, generator=random), dim=1)
    codes = F.pad(F.pad(codes, (0, 1), value=1.0), (0, 0, 1, 0))
    codes[0, -1] = NOTHING
    return codes.to(truth.boxes.device)


def _readers(codes: Tensor) -> Tensor:
    """Vectors, [n, length], whose products with the codes of cells give the things' mask logits / SHARPNESS."""
    readers = codes[1:].clone()
    readers[:, -1] = -MATCH
    return readers


def _spinet(network: SPINet, outputs: Features, truth: ImageTruth, semantic: Tensor) -> Features:
    """Peaks in the class maps, filters there, and φ: the code of the thing and the logits of the classes.

    If the deconvolution is delayed, gives the map before it in place of φ; borders of things then follow its cells.
    """
    phi, convolution = outputs.phi, network.single_shot_convolution
    stride = network.PHI_STRIDE
    if isinstance(convolution, DeconvolvingSingleShot):
        stride, convolution = PanopticFeatureGenerator.STRIDE, convolution.single_shot
    num_semantic, channels = convolution.weight.shape[:2]
    length = channels - num_semantic
    codes = _codes(truth, length)
    classes = [torch.full_like(level, -SURE) for level in outputs.class_logits]
    filters = [torch.zeros_like(level) for level in outputs.filter_features]
    middle = (truth.boxes[:, :2] + truth.boxes[:, 2:]) / 2
    order = torch.linspace(0, 0.1, max(len(middle), 1), device=middle.device)[: len(middle)]
    for level, size in enumerate(network.strides[:FIRES]):
        x, y = (middle / size).long().unbind(1)
        confidence = 0.95 - 0.12 * level - order  # a duplicate has a lower score than any first candidate
        classes[level][0, truth.labels, y, x] = confidence.logit().to(classes[level].dtype)
        filters[level][0, :length, y, x] = (SHARPNESS * _readers(codes).t()).to(filters[level].dtype)
    labels = _in_cells(semantic, stride)
    parts = [codes[_numbers(truth, stride)].permute(2, 0, 1), _logits(labels, num_semantic)[0]]
    # before the deconvolution there may be more channels, for coordinates
    staged = _like(phi, F.pad(torch.cat(parts), (0, 0, 0, 0, 0, phi.shape[1] - channels))[None])
    return Features(classes, filters, staged, staged)


def _plant(network: SPINet) -> Callable[[], None]:
    """Sets stuff filters that read the last channels of φ, and makes delayed layers the identity.

    Returns a function that restores the network's own weights.
    """
    sampling, convolution = network.filter_sampling, network.single_shot_convolution
    planted: list[tuple[Tensor, Tensor]] = []
    if isinstance(sampling, FiltersOnDemand):
        planted.append((sampling.weight, nn.init.dirac_(torch.empty_like(sampling.weight))))
        planted.append((sampling.bias, torch.zeros_like(sampling.bias)))
    if isinstance(convolution, DeconvolvingSingleShot):
        deconvolution, convolution = convolution.deconvolution, convolution.single_shot
        same = torch.eye(*deconvolution.weight.shape[:2])[:, :, None, None]
        planted.append((deconvolution.weight, same.expand_as(deconvolution.weight)))
        bias: Tensor = deconvolution.bias  # pyright: ignore[reportAssignmentType]
        planted.append((bias, torch.zeros_like(bias)))
    outputs, channels, kernel, _ = convolution.weight.shape
    readers = torch.zeros_like(convolution.weight)
    readers[:, channels - outputs :, kernel // 2, kernel // 2] = torch.eye(outputs)
    planted.append((convolution.weight, readers))
    planted.append((convolution.bias, torch.zeros_like(convolution.bias)))
    before = [(parameter, parameter.clone()) for parameter, _ in planted]

    def put(values: list[tuple[Tensor, Tensor]]) -> None:
        for parameter, value in values:
            parameter.copy_(value)

    put(planted)
    return partial(put, before)


def _unchanged(layer: nn.Module, inputs: tuple[Tensor], output: Tensor) -> Tensor:
    return inputs[0].to(output.dtype)


def _deeplab(network: PanopticDeepLab, outputs: DeepLabOutputs, truth: ImageTruth, labels: Tensor) -> DeepLabOutputs:
    heat = heat_map(truth, network.config.sigma)
    offset = offsets(truth)[0] / 4
    return DeepLabOutputs(
        semantic=_like(outputs.semantic, _logits(labels, outputs.semantic.shape[1])),
        centre=_like(outputs.centre, F.avg_pool2d(heat[None, None], 4)),
        offset=_like(outputs.offset, torch.stack([_in_cells(axis, 4) for axis in offset])[None]),
    )


def _condinst(network: CondInst, outputs: CondInstOutputs, truth: ImageTruth, labels: Tensor) -> CondInstOutputs:
    """Detects each thing at all its positive training locations; their dynamic filters mask its cells near its box."""
    grid, config = outputs.grid, network.config
    thing = assign(grid, truth, config)
    location = torch.nonzero(thing >= 0)[:, 0]
    thing = thing[location]
    codes = _codes(truth, config.channels)
    classes = torch.full_like(outputs.classes, -SURE)
    classes[0, location, truth.labels[thing]] = SURE
    boxes, positions = truth.boxes[thing], grid.positions[location]
    sides = (boxes - positions.repeat(1, 2)) * boxes.new_tensor([-1, -1, 1, 1])  # pixels
    staged_sides = torch.ones_like(outputs.sides)
    staged_sides[0, location] = sides / grid.strides[location, None]
    sizes = torch.tensor([*config.sizes, 2 * config.sizes[-1]], device=boxes.device)[grid.level[location]]
    # inputs: location − cell along x and y, in units of sizes, then the shared channels
    layers = dynamic_layers(config.channels)
    weights = [boxes.new_zeros(len(location), after, count // after) for count, after in layers]
    biases = [boxes.new_zeros(len(location), after) for _, after in layers]
    weights[0][:, 0, 2:] = _readers(codes)[thing]
    biases[0][:, 0] = 1.0  # a ReLU comes next
    for unit, (axis, sign, side) in enumerate(((0, 1, 0), (1, 1, 1), (0, -1, 2), (1, -1, 3)), start=1):
        weights[0][:, unit, axis] = sign  # distance of the cell outside the box on that side …
        biases[0][:, unit] = -(sides[:, side] + 8) / sizes  # … minus a cell's width
    weights[1][:] = torch.eye(HIDDEN)
    weights[2][:, 0, 0] = SHARPNESS
    weights[2][:, 0, 1:5] = -1e3
    biases[2][:, 0] = -SHARPNESS
    filters = torch.zeros_like(outputs.filters)
    filters[0, location] = torch.cat([part.flatten(1) for part in (*weights, *biases)], dim=1)
    shared = codes[_numbers(truth, 8)].permute(2, 0, 1)[None]
    return CondInstOutputs(
        grid=grid,
        classes=classes,
        sides=staged_sides,
        centreness=torch.full_like(outputs.centreness, SURE),
        filters=filters,
        shared=_like(outputs.shared, shared),
        semantic=_like(outputs.semantic, _logits(labels, outputs.semantic.shape[1])),
    )


def _stage_detector(network: Detector, truth: ImageTruth, labels: Tensor) -> list[RemovableHandle]:
    """Puts the things' boxes first among the proposals, with outputs for them; other proposals are background."""
    heads: Any = network.roi_heads
    count = len(truth.labels)
    order = torch.linspace(0, 0.1, max(count, 1), device=truth.boxes.device)[:count]
    masks = roi_align(truth.masks[:, None].float(), list(truth.boxes.split(1)), 28) if count else None
    semantic: list[Tensor] = []

    def propose(module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        features, (proposals,), *rest = inputs
        return features, [torch.cat([truth.boxes.to(proposals.dtype), proposals[count:]])], *rest

    def classify(module: nn.Module, inputs: Any, output: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        scores = torch.full_like(output[0], -2 * SURE)
        scores[:, 0] = 0.0
        scores[count:, 0] = SURE
        scores[torch.arange(count), truth.labels + 1] = (0.95 - order).logit()
        return scores, torch.zeros_like(output[1])

    def draw(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        return output if masks is None else (SURE * (2 * masks - 1)).to(output.dtype).expand_as(output)

    def label(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        if not semantic:
            semantic.append(_like(output, _logits(labels, output.shape[1])))
        return semantic[0]

    return [
        heads.register_forward_pre_hook(propose),
        heads.box_predictor.register_forward_hook(classify),
        heads.mask_predictor.register_forward_hook(draw),
        network.semantic_head.register_forward_hook(label),
    ]
