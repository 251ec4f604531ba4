"""A table of texts whose columns are grouped into blocks."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import groupby

NUMBER = re.compile(r"[–\d+−-][^A-Za-z]*")
"""A cell with numbers, possibly with a spread, a sign or a range; or an empty cell."""


@dataclass(frozen=True)
class Grid:
    """`columns` are (block, name), with equal blocks next to each other; every row has one text per column."""

    columns: list[tuple[str, str]]
    rows: list[list[str]]

    @property
    def blocks(self) -> list[tuple[str, int]]:
        """Each block and the number of its columns."""
        return [(block, len(list(members))) for block, members in groupby(block for block, _ in self.columns)]

    def markdown(self) -> str:
        """The table in Markdown. The heading of a block's first column names the block. Numbers are right-aligned."""
        heads, before = [], ""
        for block, name in self.columns:
            heads.append(f"**{block}:** {name}" if block and block != before else name)
            before = block
        rules = ["---:" if all(map(NUMBER.fullmatch, cells)) else "---" for cells in zip(*self.rows, strict=True)]
        lines = [heads, rules, *([cell.replace("|", "\\|") for cell in row] for row in self.rows)]
        return "\n".join(f"| {' | '.join(cells)} |" for cells in lines) + "\n"
