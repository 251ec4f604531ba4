"""§5.2 Mask logits of many things, each in the window of the map that its mask can cover."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import ceil

import cv2
import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from spinet.config import InferenceConfig


@dataclass(frozen=True)
class MaskLogits:
    """n maps of logits at stride 4 of the network's input, each stored in a window of p × q cells.

    Outside its window a mask is empty. If masks may cover the whole image, the window is the whole map.
    """

    values: Float[Tensor, "n p q"]
    top: Int[Tensor, "n"]  # first row of the window in the map
    left: Int[Tensor, "n"]  # first column
    size: tuple[int, int]  # h, w of the map, cells

    @classmethod
    def of(cls, logits: Float[Tensor, "n h w"]) -> MaskLogits:
        """Stores whole maps, in float32, one after the other in memory, for fast reading."""
        zero = torch.zeros(len(logits), dtype=torch.int64, device=logits.device)
        return cls(logits.contiguous().float(), zero, zero, (logits.shape[1], logits.shape[2]))

    @classmethod
    def around(
        cls, logits: Float[Tensor, "n h w"], positions: Float[Tensor, "n 2"], *, reach: float, stride: int
    ) -> MaskLogits:
        """Stores cells within `reach` pixels of each location (see `within_reach`), plus one each side, in float32."""
        cells = ceil(reach / stride) + 1
        values = logits
        begins: list[Tensor] = []
        for axis in (0, 1):
            length = logits.shape[1 + axis]
            width = min(2 * cells + 1, length)
            begin = ((positions[:, axis] / stride).long() - cells).clamp(0, length - width)
            index = begin[:, None] + torch.arange(width, device=logits.device)
            values = values.take_along_dim(index.unsqueeze(2 - axis), 1 + axis)
            begins.append(begin)
        return cls(values.float(), begins[0], begins[1], (logits.shape[1], logits.shape[2]))

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, chosen: Tensor) -> MaskLogits:
        return replace(self, values=self.values[chosen], top=self.top[chosen], left=self.left[chosen])

    def whole(self) -> Float[Tensor, "n h w"]:
        """The whole maps, with −1e4 outside the windows."""
        n, p, q = self.values.shape
        if (p, q) == self.size:
            return self.values
        maps = self.values.new_full((n, *self.size), -1e4)
        number, rows, columns = (torch.arange(length, device=maps.device) for length in (n, p, q))
        rows, columns = self.top[:, None] + rows, self.left[:, None] + columns
        maps[number[:, None, None], rows[:, :, None], columns[:, None]] = self.values
        return maps

    def above(self, cut: float) -> Float[Tensor, "n h*w"]:
        """The logits above `cut`, as a sparse matrix: a row for each mask, a column for each cell of the map."""
        number, row, column = torch.nonzero(self.values > cut, as_tuple=True)
        cell = (row + self.top[number]) * self.size[1] + column + self.left[number]
        return torch.sparse_coo_tensor(
            torch.stack([number, cell]),
            self.values[number, row, column],
            (len(self), self.size[0] * self.size[1]),
            is_coalesced=True,
            check_invariants=False,
        )

    def connected(self, cut: float, positions: Float[Tensor, "n 2"]) -> MaskLogits:
        """Keeps only the part of each mask that is connected to the cell nearest to its filter's location.

        Args:
            cut: the logit above which a cell belongs to a mask; cells that share a side are connected.
            positions: row and column of each filter, in cells of the map.
        """
        origins = torch.stack([self.top, self.left], dim=1) + 0.5
        inside, centres = (self.values > cut).cpu().numpy(), (positions - origins).cpu().numpy()
        other = np.zeros_like(inside)
        for number, (mask, centre) in enumerate(zip(inside.view(np.uint8), centres, strict=True)):
            count, parts = cv2.connectedComponents(mask, connectivity=4)
            if count > 2:  # the background and more than one part
                cells = np.argwhere(mask)
                nearest = cells[((cells - centre) ** 2).sum(1).argmin()]
                other[number] = mask & (parts != parts[tuple(nearest)])
        return replace(self, values=self.values.masked_fill(torch.from_numpy(other).to(self.values.device), -1e4))

    def boxes(self, cut: float) -> Int[Tensor, "n 4"]:
        """First and last row, first and last column of the cells above `cut`. If there are none, last < first − 1."""
        inside = self.values > cut
        bounds = []
        for axis, begin in ((2, self.top), (1, self.left)):
            line = inside.any(axis).byte()
            length = line.shape[1]
            first, last = line.argmax(1), length - 1 - line.flip(1).argmax(1)
            empty = line.amax(1) == 0
            bounds += [begin + first.masked_fill(empty, 2), begin + last.masked_fill(empty, 0)]
        return torch.stack(bounds, dim=1)


def mask_cut(config: InferenceConfig) -> float:
    """The logit above which a pixel belongs to a mask."""
    return float(torch.logit(torch.tensor(config.mask_threshold)))
