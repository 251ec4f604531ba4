"""Writes student copies of the course: the bodies of its exercises are gone, the checks of them stay.

    python docs/exercises.py build/exercises

A code cell tagged `exercise` defines functions that a later check compares with the package. A copy keeps the signature
and the docstring of each, and raises NotImplementedError below. The solution is the notebook itself. The folder also
gets points.md, a table for a teacher.
"""

from __future__ import annotations

import ast
import re
import sys
from dataclasses import dataclass
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parent.parent
TAG = "exercise"
LINES_A_POINT = 3


@dataclass(frozen=True)
class Exercise:
    """A function that a student writes."""

    notebook: str
    function: str
    lines: int  # of the solution

    @property
    def points(self) -> int:
        """One for each three lines, and at least one."""
        return -(-self.lines // LINES_A_POINT)


def write(notebooks: Path, out: Path) -> list[Exercise]:
    """Writes a copy of every notebook of a folder, and the table of points."""
    out.mkdir(parents=True, exist_ok=True)
    exercises = []
    for path in sorted(notebooks.glob("*.ipynb")):
        notebook = nbformat.read(path, as_version=4)
        exercises += strip_notebook(notebook, path.stem)
        nbformat.write(notebook, out / path.name)
    (out / "points.md").write_text(table(exercises), encoding="utf-8")
    return exercises


def strip_notebook(notebook: nbformat.NotebookNode, name: str) -> list[Exercise]:
    """Turns a notebook into its student copy, two folders below the project instead of one."""
    exercises = []
    for cell in notebook.cells:
        tags = cell.metadata.get("tags", [])
        if TAG in tags:
            cell.source, lines = strip_cell(cell.source)
            exercises += [Exercise(name, function, number) for function, number in lines.items()]
        if cell.cell_type == "markdown" or "parameters" in tags:
            cell.source = re.sub(r"(?<=[(\"'])\.\./", "../../", cell.source)
    return exercises


def strip_cell(source: str) -> tuple[str, dict[str, int]]:
    """A cell without the bodies of its functions, and how many lines each body had.

    Raises:
        ValueError: the cell defines no function, or one has no docstring, so that a student cannot know its task.
    """
    functions = [node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef)]
    if not functions:
        raise ValueError(f"this cell is tagged {TAG} but defines no function:\n{source}")
    lines, counts = source.splitlines(), {}
    for function in reversed(functions):
        if not ast.get_docstring(function) or not function.end_lineno:
            raise ValueError(f"{function.name} needs a docstring that says what to write")
        start, end = function.body[0].end_lineno or 0, function.end_lineno
        counts[function.name] = sum(bool(line.strip()) for line in lines[start:end])
        lines[start:end] = ["    raise NotImplementedError"]
    return "\n".join(lines), dict(reversed(counts.items()))


def table(exercises: list[Exercise]) -> str:
    """The points as Markdown."""
    rows = [f"| {one.notebook} | `{one.function}` | {one.lines} | {one.points} |" for one in exercises]
    total = sum(one.points for one in exercises)
    head = [
        "# Points",
        "",
        f"An exercise gives a point for every {LINES_A_POINT} lines of the solution, and at least one. It is solved",
        "when its notebook runs from top to bottom: the check of an exercise is in its cell or in a later one.",
        "",
        "| notebook | function | lines of the solution | points |",
        "|---|---|---:|---:|",
    ]
    return "\n".join([*head, *rows, f"| all | {len(exercises)} functions | | {total} |", ""])


if __name__ == "__main__":
    written = write(ROOT / "notebooks", Path(sys.argv[1]))
    print(f"{len(written)} exercises in {len({one.notebook for one in written})} notebooks: {sys.argv[1]}/points.md")
