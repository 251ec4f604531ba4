"""The map of the paper is made from records, and everything that it names exists."""

import re

import nbformat
import pytest
from paper_map import PAGE, PARTS, ROOT, notebook, page

from spinet.cli import parse
from spinet.figures.__main__ import COMPARISONS, FIGURES

ENTRIES = [entry for entries in PARTS.values() for entry in entries]
every_entry = pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: f"{entry.place} {entry.what}")


def test_the_page_is_the_one_of_the_records():
    assert PAGE.read_text(encoding="utf-8") == page(), "run: make docs"


def test_every_figure_table_and_equation_is_on_the_map():
    places = {entry.place for entry in ENTRIES}
    numbered = (
        {f"Fig. {n}" for n in range(1, 6)} | {f"Table {n}" for n in range(1, 6)} | {f"Eq. {n}" for n in range(1, 8)}
    )
    assert numbered <= places


@every_entry
def test_its_heading_is_in_the_notebook(entry):
    cells = nbformat.read(notebook(entry), as_version=4).cells
    text = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    assert entry.heading in re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)


@every_entry
def test_its_command_exists(entry):
    program, *words = entry.command.split()
    if program == "spinet":
        parse(words)
    elif program == "make":
        target, *settings = words
        makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
        figure = target.removeprefix("figure-")
        if figure != target:
            assert re.search(r"^figure-%:", makefile, flags=re.MULTILINE)
            assert {figure, f"figure_{figure}"} & {*FIGURES, *COMPARISONS}
        else:
            assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE)
        assert settings in ([], [f"NB={entry.notebook}"])
    else:
        assert words[:2] == ["-m", "pytest"]
        assert (ROOT / words[2]).is_file()
