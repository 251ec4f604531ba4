"""The course: every notebook runs as stored, and follows common rules for format, text and links."""

import ast
import json
import re
import tempfile
from pathlib import Path

import nbformat
import papermill
import pytest
from nbstripout import strip_output
from traitlets.config import Config

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)

# papermill waits forever for outputs that these fill by messages (nbclient#312, papermill#723)
BANNED = {"Output", "interact", "interactive", "interactive_output", "interact_manual", "pyplot", "rich"}


def read(path):
    return nbformat.read(path, as_version=4)


def cells(path, kind):
    return [cell for cell in read(path).cells if cell.cell_type == kind]


def prose(path):
    """The notebook's Markdown, without code."""
    text = "\n\n".join(cell.source for cell in cells(path, "markdown"))
    return re.sub(r"```.*?```|`[^`\n]*`", "", text, flags=re.DOTALL)


def code(path):
    """The notebook's Python, as one module; without IPython commands."""
    lines = "\n".join(cell.source for cell in cells(path, "code")).splitlines()
    return ast.parse("\n".join(line for line in lines if not line.startswith(("%", "!"))))


# --- it runs ----------------------------------------------------------------------------------------------------------


@every_notebook
@pytest.mark.timeout(580)
def test_it_runs_from_top_to_bottom(path, tmp_path, monkeypatch):
    """By papermill, with default parameters, next to the files that it may read, without user settings."""
    for entry in ROOT.iterdir():
        if not entry.name.startswith(".") and entry.name not in {"notebooks", "build", "runs"}:
            (tmp_path / entry.name).symlink_to(entry)
    place, temporary = tmp_path / "notebooks", tmp_path / "temporary"
    place.mkdir()
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")
    here = sorted(tmp_path.iterdir())
    # kernels over TCP compete for ports; the paths of sockets must be short
    with tempfile.TemporaryDirectory(dir="/tmp") as runtime:
        monkeypatch.setenv("JUPYTER_RUNTIME_DIR", runtime)
        executed = papermill.execute_notebook(
            str(path),
            None,
            cwd=str(place),
            progress_bar=False,
            execution_timeout=500,
            config=Config({"KernelManager": {"transport": "ipc"}}),
        )
    assert executed.metadata.papermill.exception is None
    assert all(cell.execution_count for cell in executed.cells if cell.cell_type == "code")
    pictures = [
        output for cell in executed.cells for output in cell.get("outputs", []) if "image/png" in output.get("data", {})
    ]
    assert pictures, "shows no picture"
    words = [
        output.metadata["image/png"].get("alt") for output in pictures if "image/png" in output.get("metadata", {})
    ]
    assert all(alt and alt != "a figure" for alt in words), "a figure has no words: described(figure, …)"
    assert not list(place.iterdir()), "writes beside itself"
    assert sorted(p for p in tmp_path.iterdir() if p.name != "ipython") == here, "writes into the project"


# --- how it is stored -------------------------------------------------------------------------------------------------


def test_there_is_a_course():
    assert len(NOTEBOOKS) >= 14


@every_notebook
def test_it_is_stored_without_anything_that_a_run_leaves(path):
    remedy = f"run: nbstripout --extra-keys metadata.language_info {path.relative_to(ROOT)}"
    notebook = read(path)
    assert notebook == strip_output(read(path), keep_output=False, keep_count=False, keep_id=True), remedy
    assert notebook.metadata.kernelspec == {"display_name": "Python 3", "language": "python", "name": "python3"}
    assert notebook.metadata.keys() <= {"kernelspec", "language_info"}, remedy
    assert notebook.metadata.get("language_info", {}).keys() <= {"name"}, remedy
    assert all(cell.metadata.keys() <= {"tags"} for cell in notebook.cells), remedy


@every_notebook
def test_it_is_valid_and_its_cells_have_names(path):
    notebook = json.loads(path.read_text(encoding="utf-8"))
    nbformat.validate(notebook)
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    names = [cell["id"] for cell in notebook["cells"]]
    assert len(names) == len(set(names))
    assert all(cell["source"] for cell in notebook["cells"]), "has an empty cell"


@every_notebook
def test_its_parameters_are_json_values_with_types_and_words(path):
    (cell,) = [cell for cell in read(path).cells if "parameters" in cell.metadata.get("tags", [])]
    statements = ast.parse(cell.source).body
    values = {}
    for statement in statements:
        assert isinstance(statement, ast.AnnAssign), f"{ast.unparse(statement)}: needs a type"
        values[statement.target.id] = ast.literal_eval(statement.value)
    assert values
    assert json.loads(json.dumps(values)) == values
    shown = papermill.inspect_notebook(str(path))
    assert shown.keys() == values.keys()
    for name, facts in shown.items():
        assert facts["help"], f"{name}: needs a comment"
        assert "null" not in facts["help"].split(), f"{name}: the word is None in Python"


@every_notebook
def test_its_widgets_run_without_a_front_end(path):
    """No output that papermill waits for, no window, and no control that draws while it is dragged."""
    tree = code(path)
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    names |= {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names |= {part for alias in node.names for part in alias.name.split(".")}
            names |= set((getattr(node, "module", None) or "").split("."))
    assert not names & BANNED
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("Slider"):
            given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
            assert given.get("continuous_update") == "False" or None in given, ast.unparse(node)


# --- how it is written ------------------------------------------------------------------------------------------------


@every_notebook
def test_it_opens_with_a_picture_a_goal_and_what_one_needs(path):
    first = read(path).cells[0]
    assert first.cell_type == "markdown"
    opening = "\n".join(cell.source for cell in read(path).cells[:4] if cell.cell_type == "markdown")
    title, picture = opening.split("\n\n")[:2]
    assert re.fullmatch(r"# .+", title)
    (words, file) = re.fullmatch(r"!\[(.+)\]\((.+)\)", picture, flags=re.DOTALL).groups()
    assert len(words) > 20, "the picture is not described"
    assert (FOLDER / file).is_file(), f"{file} is gone: make figures"
    assert file.startswith("../figures/")
    for part in ("Goal", "You need", "Paper"):
        assert re.search(rf"\*\*{part}\b", opening), part
    assert "§" in opening
    assert re.search(r"\b(minutes?|seconds?|hours?)\b", opening), "does not say how long it takes"
    assert len(re.findall(r"^# ", prose(path), flags=re.MULTILINE)) == 1


@every_notebook
def test_it_ends_with_exercises_and_a_way_on(path):
    text = prose(path)
    exercises, onward = re.search(
        r"^## Exercises$(.*)^## What to try next$(.*)", text, flags=re.DOTALL | re.MULTILINE
    ).groups()
    questions = len(re.findall(r"^ {0,3}(?:\d+\.|\*\*\d+\.?\*\*|### )", exercises, flags=re.MULTILINE))
    answers = re.findall(r"<details>\s*<summary>\s*Answer\s*</summary>(.+?)</details>", exercises, flags=re.DOTALL)
    assert 2 <= questions <= len(answers)
    assert all(len(answer.strip()) > 20 for answer in answers)
    assert re.search(r"\]\(\d\d_\w+\.ipynb", onward)


# --- links -----------------------------------------------------------------------------------------------------------


def links(text):
    return re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r"<(?:a|img)\b[^>]*(?:href|src)=\"([^\"]+)\"", text)


def anchors(path):
    """Valid anchors of a file: its headings, in the form of pages."""
    text = prose(path) if path.suffix == ".ipynb" else path.read_text(encoding="utf-8")
    titles = re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def broken(text, place):
    """Broken links of a text within the project."""
    found = []
    for link in links(text):
        if re.match(r"https?://", link):
            continue
        name, _, anchor = link.partition("#")
        target = place / name if name else place
        if not target.exists() or (anchor and target.is_file() and anchor not in anchors(target)):
            found.append(link)
    return found


def test_broken_links_are_seen(tmp_path):
    (tmp_path / "page.md").write_text("# One thing, and another\n")
    text = '[a](page.md) [b](page.md#one-thing-and-another) [c](page.md#two) [d](gone.md) <img src="e.png"> [f](http://g.h)'
    assert broken(text, tmp_path) == ["page.md#two", "gone.md", "e.png"]


@every_notebook
def test_its_links_lead_somewhere(path):
    assert not broken(prose(path), FOLDER)
    own = [link[1:] for link in links(prose(path)) if link.startswith("#")]
    assert set(own) <= anchors(path)


PAGES = [
    *ROOT.glob("*.md"),
    *ROOT.glob("docs/*.md"),
    ROOT / "data" / "README.md",
    ROOT / "spinet/checkpoints/README.md",
]


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_of_a_page_lead_somewhere(path):
    assert not broken(path.read_text(encoding="utf-8"), path.parent)


def test_the_readme_is_one_screen():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 130


# --- the page of the course -------------------------------------------------------------------------------------------

ROW = re.compile(
    r"^\| <img src=\"\.\./(?P<picture>[^\"]+)\".* \| \[.+\]\(\.\./notebooks/(?P<stem>\w+)\.ipynb\) \| .+ \| "
    r"(?P<minutes>\d+) \| (?P<part>core|optional) \|$",
    flags=re.MULTILINE,
)
ROWS = {row["stem"]: row for row in ROW.finditer((ROOT / "docs" / "course.md").read_text(encoding="utf-8"))}
"""Rows of the table, in the order of reading."""


def is_core(stem):
    return ROWS[stem]["part"] == "core"


def test_the_page_of_the_course_lists_every_notebook_with_its_picture():
    firsts = {
        path.stem: re.search(r"!\[.+?\]\(\.\./(.+?)\)", prose(path), flags=re.DOTALL).group(1) for path in NOTEBOOKS
    }
    assert {stem: row["picture"] for stem, row in ROWS.items()} == firsts


def test_the_core_takes_three_hours():
    assert 170 <= sum(int(row["minutes"]) for stem, row in ROWS.items() if is_core(stem)) <= 190


@every_notebook
def test_it_needs_only_what_is_read_before(path):
    """And a notebook of the core needs only the core."""
    opening = "\n\n".join(cell.source for cell in read(path).cells[:4] if cell.cell_type == "markdown")
    needs = re.search(r"\*\*You need\b.*?(?=\n\n)", opening, flags=re.DOTALL).group()
    needed = [] if "Nothing" in needs else re.findall(r"\((\w+)\.ipynb", needs)
    order = list(ROWS)
    assert all(order.index(stem) < order.index(path.stem) for stem in needed)
    assert all(is_core(stem) for stem in needed) or not is_core(path.stem)
    assert not is_core(path.stem) or "*Optional" not in opening
