"""The coding track: student copies lack the solutions and nothing else, and their checks tell the two apart."""

import ast
import importlib.util
import sys
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = ROOT / "notebooks"
specification = importlib.util.spec_from_file_location("exercises", ROOT / "docs" / "exercises.py")
exercises = importlib.util.module_from_spec(specification)
sys.modules["exercises"] = exercises  # which dataclasses look into
specification.loader.exec_module(exercises)


@pytest.fixture(scope="module")
def copies(tmp_path_factory):
    """The folder of student copies, and the exercises that were made."""
    out = tmp_path_factory.mktemp("copies") / "exercises"
    return out, exercises.write(NOTEBOOKS, out)


def read(path):
    return nbformat.read(path, as_version=4).cells


def is_exercise(cell):
    return exercises.TAG in cell.metadata.get("tags", [])


def run(path, last):
    """Executes the code of a notebook up to the cell with an index, which is included."""
    names = {"__name__": "__main__"}
    for cell in read(path)[: last + 1]:
        if cell.cell_type == "code":
            exec(compile(cell.source, f"{path.stem}, {cell.id}", "exec"), names)


def test_every_marked_function_is_stripped_and_says_what_to_write(copies):
    out, made = copies
    found = []
    for path in sorted(out.glob("*.ipynb")):
        for cell in filter(is_exercise, read(path)):
            functions = [node for node in ast.parse(cell.source).body if isinstance(node, ast.FunctionDef)]
            for function in functions:
                assert ast.get_docstring(function)
                assert ast.unparse(function.body[1:]) == "raise NotImplementedError"
                found.append((path.stem, function.name))
    assert found == [(one.notebook, one.function) for one in made]
    assert len(found) >= 25
    assert len({notebook for notebook, _ in found}) >= 12


def test_nothing_else_is_changed(copies):
    out, _ = copies
    assert sorted(path.name for path in out.glob("*.ipynb")) == sorted(path.name for path in NOTEBOOKS.glob("*.ipynb"))
    for path in NOTEBOOKS.glob("*.ipynb"):
        for ours, theirs in zip(read(path), read(out / path.name), strict=True):
            if is_exercise(ours):
                after = ours.source.split("\n\n\n")[-1]  # what follows the last function: often its check
                assert after.startswith("def ") or theirs.source.endswith(after)
                assert len(theirs.source) < len(ours.source)
            else:  # but for the way to the project, which is one folder longer
                assert theirs.source.replace("../../", "../") == ours.source


def test_links_lead_from_build_exercises_into_the_project():
    notebook = nbformat.read(NOTEBOOKS / "53_results.ipynb", as_version=4)
    exercises.strip_notebook(notebook, "53_results")
    assert "](../../figures/published.png)" in notebook.cells[0].source
    (parameters,) = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    assert '"../../figures/runs"' in parameters.source


def test_the_table_of_points_names_every_exercise(copies):
    out, made = copies
    rows = (out / "points.md").read_text(encoding="utf-8").splitlines()
    for one in made:
        assert f"| {one.notebook} | `{one.function}` | {one.lines} | {one.points} |" in rows
    assert rows[-1] == f"| all | {len(made)} functions | | {sum(one.points for one in made)} |"
    assert min(one.points for one in made) >= 1


# one notebook with its checks behind the exercises, one with its check in the cell of the exercise
CHECKS = {"11_from_scratch": "PQ = package", "31_fpn": "naive_fpn(fpn, *maps)", "70_your_own_data": "from_masks(whole)"}


@pytest.mark.parametrize("name", CHECKS)
def test_a_copy_fails_its_check_and_the_solution_passes(name, copies, monkeypatch):
    monkeypatch.chdir(NOTEBOOKS)
    (last,) = [index for index, cell in enumerate(read(NOTEBOOKS / f"{name}.ipynb")) if CHECKS[name] in cell.source]
    run(NOTEBOOKS / f"{name}.ipynb", last)
    with pytest.raises(NotImplementedError):
        run(copies[0] / f"{name}.ipynb", last)


def test_a_wrong_answer_fails(tmp_path, monkeypatch):
    monkeypatch.chdir(NOTEBOOKS)
    notebook = nbformat.read(NOTEBOOKS / "11_from_scratch.ipynb", as_version=4)
    (index,) = [i for i, cell in enumerate(notebook.cells) if "single shot = 1×1 convolution" in cell.source]
    (cell,) = [cell for cell in notebook.cells[:index] if is_exercise(cell)]
    cell.source = cell.source.replace("phi - 0.5", "phi")
    nbformat.write(notebook, tmp_path / "11_from_scratch.ipynb")
    with pytest.raises(AssertionError, match="single shot"):
        run(tmp_path / "11_from_scratch.ipynb", index)


def test_an_exercise_without_a_function_or_a_docstring_is_refused():
    with pytest.raises(ValueError, match="defines no function"):
        exercises.strip_cell("x = 1")
    with pytest.raises(ValueError, match="twin needs a docstring"):
        exercises.strip_cell("def twin(x):\n    return x")


WHOLE = """
@cached
def one(x: int,
        y=2) -> int:
    '''Adds.

    Both.
    '''
    # how
    return x + y


def two(x):
    '''Doubles.'''
    def inner(y):
        return 2 * y

    return inner(x)


assert two(2) == 4
"""
STRIPPED = """
@cached
def one(x: int,
        y=2) -> int:
    '''Adds.

    Both.
    '''
    raise NotImplementedError


def two(x):
    '''Doubles.'''
    raise NotImplementedError


assert two(2) == 4
"""


def test_only_bodies_go():
    text, lines = exercises.strip_cell(WHOLE.strip("\n"))
    assert lines == {"one": 2, "two": 3}
    assert text == STRIPPED.strip("\n")
