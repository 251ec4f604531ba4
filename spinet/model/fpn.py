"""§3.1 Feature pyramid with a halved C2."""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

Level = Literal["P2", "P3", "P4", "P5", "P6", "P6/64", "P7/128"]

STRIDE: dict[Level, int] = {"P2": 8, "P3": 8, "P4": 16, "P5": 32, "P6": 32, "P6/64": 64, "P7/128": 128}
"""Image pixels per cell. P2 has the stride of P3, since C2 is halved. The paper's P6 has the stride of P5."""

LEVELS: dict[str, tuple[Level, ...]] = {
    "2-5": ("P2", "P3", "P4", "P5"),
    "2-6": ("P2", "P3", "P4", "P5", "P6"),
    "3-7": ("P3", "P4", "P5", "P6/64", "P7/128"),  # the usual pyramid of one-stage detectors, Table 4
}


class FPN(nn.Module):
    """Computes the required levels from C2 … C5.

    P5 = lateral(C5), P4 = lateral(C4) + 2·P5, P3 = lateral(C3) + 2·P4, P2 = lateral(C2)/2 + P3, where 2· doubles and /2
    halves the size. A 3×3 convolution smooths each level. P6 is computed from C5 like P5; "P6/64" and "P7/128" by
    convolutions of stride 2.
    """

    def __init__(self, *, in_channels: list[int], channels: int, levels: set[Level]):
        super().__init__()
        self.levels = levels
        names = ["C2", "C3", "C4", "C5"]
        self.lateral = nn.ModuleDict(
            {
                name: nn.Conv2d(count, channels, 1)
                for name, count in zip(names, in_channels, strict=True)
                if name != "C2" or "P2" in levels
            }
        )
        if "P6" in levels:
            self.lateral["P6"] = nn.Conv2d(in_channels[-1], channels, 1)
        self.smooth = nn.ModuleDict(
            {
                level: nn.Conv2d(channels, channels, 3, padding=1)
                for level in ("P2", "P3", "P4", "P5", "P6")
                if level in levels
            }
        )
        if "P6/64" in levels:
            self.down = nn.ModuleList([nn.Conv2d(channels, channels, 3, stride=2, padding=1) for _ in range(2)])
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_uniform_(module.weight, a=1)
                nn.init.zeros_(module.bias)  # pyright: ignore[reportArgumentType]

    def forward(self, features: list[Float[Tensor, "B C h w"]]) -> dict[Level, Float[Tensor, "B D h w"]]:
        c2, c3, c4, c5 = features
        merged = {"P5": self.lateral["C5"](c5)}
        merged["P4"] = self.lateral["C4"](c4) + resize(merged["P5"], c4)
        merged["P3"] = self.lateral["C3"](c3) + resize(merged["P4"], c3)
        if "P2" in self.levels:
            merged["P2"] = resize(self.lateral["C2"](c2), c3, mode="bilinear") + merged["P3"]
        if "P6" in self.levels:
            merged["P6"] = self.lateral["P6"](c5)
        pyramid = {level: smooth(merged[level]) for level, smooth in self.smooth.items()}
        if "P6/64" in self.levels:
            pyramid["P6/64"] = self.down[0](pyramid["P5"])
            pyramid["P7/128"] = self.down[1](pyramid["P6/64"].relu())
        return pyramid  # pyright: ignore[reportReturnType]


def resize(x: Float[Tensor, "B D h w"], like: Tensor, mode: str = "nearest") -> Float[Tensor, "B D H W"]:
    """Resizes `x` to the size of another feature map."""
    align = {} if mode == "nearest" else {"align_corners": False}
    return F.interpolate(x, size=like.shape[-2:], mode=mode, **align)
