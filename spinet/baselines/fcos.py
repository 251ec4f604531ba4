"""FCOS (Tian et al., ICCV 2019), the detector of CondInst: predictions at each location of the pyramid."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torchvision.models.detection.fcos import FCOSRegressionHead
from torchvision.ops import batched_nms

from spinet.baselines.targets import ImageTruth, centres_of_mass
from spinet.config import InferenceConfig
from spinet.config.baselines import CondInstConfig
from spinet.model.layers import group_norm


@dataclass
class Grid:
    """The L locations of all levels, in the order of the outputs."""

    positions: Float[Tensor, "L 2"]  # x, y, pixels
    strides: Float[Tensor, "L"]
    level: Int[Tensor, "L"]


def make_grid(levels: list[Float[Tensor, "B D h w"]], strides: list[int]) -> Grid:
    """The locations of feature maps: the centres of their cells."""
    parts = []
    for index, (level, stride) in enumerate(zip(levels, strides, strict=True)):
        height, width = level.shape[-2:]
        y, x = (torch.arange(n, device=level.device).float().add(0.5).mul(stride) for n in (height, width))
        positions = torch.stack([x.repeat(height), y.repeat_interleave(width)], dim=1)
        parts.append(
            (positions, torch.full_like(positions[:, 0], stride), positions.new_full((len(positions),), index).long())
        )
    return Grid(*(torch.cat(part) for part in zip(*parts, strict=True)))


class ControllingHead(FCOSRegressionHead):
    """FCOS' regression head with the controller as a third output."""

    def __init__(self, channels: int, num_convs: int, outputs: int):
        super().__init__(channels, 1, num_convs, norm_layer=group_norm)
        self.controller = nn.Conv2d(channels, outputs, 3, padding=1)
        nn.init.normal_(self.controller.weight, std=0.01)
        nn.init.zeros_(self.controller.bias)  # pyright: ignore[reportArgumentType]
        # not the authors' 0: a side that the ReLU sets to 0 everywhere would never learn
        nn.init.ones_(self.bbox_reg.bias)  # pyright: ignore[reportArgumentType]

    def forward(self, x: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Sides, centreness and filters at the L locations of all levels."""
        towers = [self.conv(level) for level in x]

        def rows(predictor: nn.Module) -> Float[Tensor, "B L C"]:
            return torch.cat([predictor(tower).flatten(2).transpose(1, 2) for tower in towers], dim=1)

        return rows(self.bbox_reg).relu(), rows(self.bbox_ctrness), rows(self.controller)


def assign(grid: Grid, image: ImageTruth, config: CondInstConfig) -> Int[Tensor, "L"]:
    """Assigns a thing to each location, or −1: the smallest thing whose centre is near.

    Near means less than `radius` strides from the centre of mass, and inside the box. The largest distance from the
    location to a side of the box decides the level: up to `sizes[0]` pixels for the first level, and so on.
    """
    if not len(image.labels):
        return torch.full_like(grid.level, -1)
    boxes = image.boxes
    sides = torch.cat(
        [grid.positions[:, None] - boxes[:, :2], boxes[:, 2:] - grid.positions[:, None]], dim=2
    )  # [L, K, 4]
    distance = (grid.positions[:, None] - centres_of_mass(image).flip(1) - 0.5).abs().amax(2)
    near = (distance < config.radius * grid.strides[:, None]) & (sides.amin(2) > 0)
    limits = torch.tensor([0, *config.sizes, float("inf")], device=boxes.device)
    largest = sides.amax(2)
    near &= (largest >= limits[grid.level, None]) & (largest <= limits[grid.level + 1, None])
    area = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    smallest, thing = area.where(near, torch.inf).min(1)
    return thing.where(smallest < torch.inf, -1)


def detect(
    grid: Grid,
    classes: Float[Tensor, "L N_t"],
    centreness: Float[Tensor, "L"],
    sides: Float[Tensor, "L 4"],
    own: CondInstConfig,
    config: InferenceConfig,
) -> tuple[Int[Tensor, "n"], Int[Tensor, "n"], Float[Tensor, "n"]]:
    """Locations, classes and scores √(class · centreness) of the things in an image, sorted by score.

    Keeps things with class · centreness above `ap_threshold`, removes boxes of the same class with more than `nms` IoU,
    and keeps the best `top`.

    Args:
        classes, centreness: logits.
        sides: distances in strides.
    """
    squares = classes.sigmoid() * centreness.sigmoid()[:, None]
    best = []
    for level in range(int(grid.level.max()) + 1):
        location, label = torch.nonzero((squares > config.ap_threshold) & (grid.level == level)[:, None]).unbind(1)
        first = squares[location, label].topk(min(len(location), own.candidates)).indices
        best.append(torch.stack([location[first], label[first]], dim=1))
    location, label = torch.cat(best).unbind(1)
    score = squares[location, label].sqrt()
    boxes = to_boxes(grid.positions[location], sides[location] * grid.strides[location, None])
    kept = batched_nms(boxes, score, label, own.nms)[: config.top]
    return location[kept], label[kept], score[kept]


def to_boxes(positions: Float[Tensor, "n 2"], sides: Float[Tensor, "n 4"]) -> Float[Tensor, "n 4"]:
    """Left, top, right, bottom of boxes with sides at these distances from the locations."""
    return torch.cat([positions - sides[:, :2], positions + sides[:, 2:]], dim=1)
