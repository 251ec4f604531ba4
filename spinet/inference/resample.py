"""§5.2 Resampling of logits at stride 4 of the network's input to pixels of the image."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from spinet.inference.mask_logits import MaskLogits
from spinet.model.spinet import Features
from spinet.system import NetworkOutput

PIECE = 2**15
"""Number of pixels that `Resampler.points` resamples at once."""


class Resampler:
    """Resamples logits at stride 4 of the padded network input to pixels of the image, bilinearly, in one step."""

    def __init__(self, *, network_size: tuple[int, int], size: tuple[int, int], device: torch.device, stride: int = 4):
        self.size = size
        self.network_size = network_size
        self.stride = stride
        self.rows, self.columns = (
            # cell coordinate of each pixel: (pixel centre · scale) / stride − 1/2
            (torch.arange(out, device=device) + 0.5) * (inner / out) / stride - 0.5
            for inner, out in zip(network_size, size, strict=True)
        )

    @classmethod
    def of(cls, output: NetworkOutput[Features], stride: int = 4) -> Resampler:
        """The resampler of maps at this stride; 4 is the stride of the Panoptic-Feature and of all masks."""
        device = output.features.phi.device
        return cls(network_size=output.network_size, size=output.size, device=device, stride=stride)

    def whole(self, logits: Float[Tensor, "n h w"]) -> Float[Tensor, "n H W"]:
        """Resamples all pixels."""
        scale = [self.stride * out / inner for out, inner in zip(self.size, self.network_size, strict=True)]
        maps = logits[None]
        if not maps.is_cuda:
            maps = maps.contiguous(memory_format=torch.channels_last)  # several times faster
        # rounding must not drop the last row or column
        enough = F.interpolate(maps, scale_factor=[s * (1 + 1e-9) for s in scale], mode="bilinear")[0]
        return enough[:, : self.size[0], : self.size[1]]

    def labels(self, logits: Float[Tensor, "n h w"]) -> Int[Tensor, "H W"]:
        """Which of n maps is the largest at each pixel: the argmax of `whole`, without resampling all pixels.

        The values of a pixel are means of those of four cells. So a map that is the largest in all four cells is the
        largest at the pixel. Only pixels between cells with different largest maps are resampled.
        """
        cells = logits.max(0).indices
        agree = torch.ones_like(cells, dtype=torch.bool)  # a cell with its neighbours to the right and below
        agree[:-1] = cells[:-1] == cells[1:]
        agree[:, :-1] &= agree[:, 1:] & (cells[:, :-1] == cells[:, 1:])
        upper, _, _ = _weights(self.rows, cells.shape[0])
        left, _, _ = _weights(self.columns, cells.shape[1])
        labels = cells[upper][:, left]
        rows, columns = torch.nonzero(~agree[upper][:, left], as_tuple=True)
        if len(rows):
            labels[rows, columns] = torch.cat([values.max(1).indices for values in self.points(logits, rows, columns)])
        return labels

    def points(
        self, logits: Float[Tensor, "n h w"], rows: Int[Tensor, "p"], columns: Int[Tensor, "p"]
    ) -> Iterator[Float[Tensor, "q n"]]:
        """The values at some pixels, in pieces that fit into the cache of a CPU."""
        _, height, width = logits.shape
        cells = logits.permute(1, 2, 0).reshape(height * width, -1)
        upper, lower, y = _weights(self.rows, height)
        left, right, x = _weights(self.columns, width)
        for row, column in zip(rows.split(PIECE), columns.split(PIECE), strict=True):
            above, below, across, down = upper[row] * width, lower[row] * width, x[column, None], y[row, None]
            first = torch.lerp(cells[above + left[column]], cells[below + left[column]], down)
            second = torch.lerp(cells[above + right[column]], cells[below + right[column]], down)
            yield torch.lerp(first, second, across)

    def windows(self, logits: MaskLogits, cut: float) -> list[tuple[slice, slice]]:
        """For each thing, the rows and columns of pixels outside which its resampled mask is empty."""
        first_row, last_row, first_column, last_column = logits.boxes(cut).to(self.rows.dtype).unbind(1)
        bounds = [
            torch.searchsorted(self.rows, first_row - 1, right=True),
            torch.searchsorted(self.rows, last_row + 1),
            torch.searchsorted(self.columns, first_column - 1, right=True),
            torch.searchsorted(self.columns, last_column + 1),
        ]
        boxes = torch.stack(bounds, dim=1).tolist()
        return [(slice(top, max(top, bottom)), slice(left, max(left, right))) for top, bottom, left, right in boxes]

    def one(self, logits: MaskLogits, number: int, window: tuple[slice, slice]) -> Float[Tensor, "P Q"]:
        """Resamples one thing to the pixels of a rectangle."""
        rows, columns = self.rows[window[0]] - logits.top[number], self.columns[window[1]] - logits.left[number]
        upper, lower, y = _weights(rows, logits.values.shape[1])
        tall = torch.lerp(logits.values[number, upper], logits.values[number, lower], y[:, None])
        left, right, x = _weights(columns, logits.values.shape[2])
        return torch.lerp(tall[:, left], tall[:, right], x)


def _weights(positions: Float[Tensor, "p"], cells: int) -> tuple[Tensor, Tensor, Tensor]:
    positions = positions.clamp(0, cells - 1)
    lower = positions.floor().long()
    return lower, (lower + 1).clamp(max=cells - 1), positions - lower
