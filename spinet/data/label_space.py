"""§3.4, §5.1 The mapping between class labels and the outputs of the stuff path. Only this module defines it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from spinet.config import SemanticClasses
from spinet.data.segments import Categories

IGNORE = -1  # a pixel or location that losses and metrics ignore: void, crowd, padding


@dataclass(frozen=True)
class LabelSpace:
    """The classes of the data, and the outputs of the stuff path.

    Class labels are numbered: things first, then stuff (see `Categories`). The stuff path has one output for each
    stuff class. With "stuff+thing" one more output, the last, represents all things. With "all" the thing classes come
    first, so that outputs and labels are the same.
    """

    kind: SemanticClasses
    num_things: int
    num_stuff: int

    @classmethod
    def of(cls, kind: SemanticClasses, categories: Categories) -> LabelSpace:
        """The label space of a data set."""
        return cls(kind, categories.num_things, categories.num_stuff)

    @property
    def first_stuff(self) -> int:
        """The output of the first stuff class; the others follow it."""
        return self.num_things if self.kind == "all" else 0

    @property
    def num_outputs(self) -> int:
        """N_s, the outputs of the stuff path."""
        return self.first_stuff + self.num_stuff + (self.kind == "stuff+thing")

    def outputs(self, labels: Int[Tensor, "K"]) -> Int[Tensor, "K"]:
        """The output for the class of each segment; `IGNORE` if there is none."""
        if self.kind == "all":
            return labels
        stuff = labels - self.num_things
        return stuff.masked_fill(stuff < 0, IGNORE if self.kind == "stuff" else self.num_stuff)

    def is_thing(self, outputs: Int[Tensor, "*s"]) -> Bool[Tensor, "*s"]:
        """Whether each output represents things."""
        return (outputs < self.first_stuff) | (outputs >= self.first_stuff + self.num_stuff)

    def ground_truth(
        self, segment_map: Int[np.ndarray, "H W"], labels: Int[np.ndarray, "K"], *, crowd: np.ndarray | None = None
    ) -> Int[np.ndarray, "H W"]:
        """The true output at each pixel, `IGNORE` if it is not labelled.

        Crowds keep their class, as in the official mIoU. With `crowd`, bool [K], they become `IGNORE`.

        Args:
            segment_map: 0 void, i + 1 the i-th segment.
            labels: class of each segment.
        """
        outputs = self.outputs(torch.from_numpy(labels)).numpy()
        return np.concatenate([[IGNORE], outputs if crowd is None else np.where(crowd, IGNORE, outputs)])[segment_map]
