"""A table of texts, whose columns stand in blocks."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby


@dataclass(frozen=True)
class Grid:
    """`columns` are (block, name), equal blocks side by side; every row has a text for each of them."""

    columns: list[tuple[str, str]]
    rows: list[list[str]]

    @property
    def blocks(self) -> list[tuple[str, int]]:
        """Each block and the number of its columns."""
        return [(block, len(list(members))) for block, members in groupby(block for block, _ in self.columns)]

    def markdown(self) -> str:
        """Markdown has one line of heads: a block's first column names the block."""
        heads, before = [], ""
        for block, name in self.columns:
            heads.append(f"**{block}:** {name}" if block and block != before else name)
            before = block
        lines = [heads, ["---"] * len(heads), *self.rows]
        return "\n".join(f"| {' | '.join(cells)} |" for cells in lines) + "\n"
