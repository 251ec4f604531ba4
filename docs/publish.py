"""Builds the site, which works without a network, from executed notebooks, docs/ and docstrings.

    python docs/publish.py build/notebooks build/site

A broken link or reference stops it.
"""

from __future__ import annotations

import re
import shutil
import sys
import tempfile
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

import nbformat
from sphinx.cmd.build import build_main

from spinet.paper import URL
from spinet.records import source_state
from spinet.report import report

ROOT = Path(__file__).resolve().parent.parent
WIDGET_ALONE = {"application/vnd.jupyter.widget-view+json", "text/plain"}

BESIDE = ("paper_map", "glossary", "references")
"""Pages of docs/ that belong to the course."""

INTRODUCTION = f"""# SPINet, taken apart

[Single-shot Path Integrated Panoptic Segmentation]({URL}) (Hwang, Oh, Kim), re-implemented and explained. The outputs
on these pages come from the run that built them. MADE

<p><a href="report.html">All runs in one report</a></p>

## The course
"""


def publish(notebooks: Path, out: Path) -> None:
    """Builds the site; docs/course.md gives order and titles of the executed notebooks.

    Raises:
        FileNotFoundError: an executed notebook is missing.
        SystemExit: Sphinx reported an error.
    """
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder)
        for name in ("benchmarks", "docs", "figures", "spinet", "tests"):  # content and link targets of the pages
            shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__", "*.safetensors"))
        (source / "data").mkdir()
        shutil.copy(ROOT / "data" / "README.md", source / "data")
        (source / "notebooks").mkdir()
        course = (source / "docs" / "course.md").read_text(encoding="utf-8").replace("../", "")
        entries = []
        for title, stem in re.findall(r"\[(\d\d [^\]]+)\]\(notebooks/(\w+)\.ipynb\)", course):
            notebook = nbformat.read(notebooks / f"{stem}.ipynb", as_version=4)
            prepare(notebook)
            nbformat.write(notebook, source / "notebooks" / f"{stem}.ipynb")
            entries.append(f"{title} <notebooks/{stem}>")
        entries += [f"docs/{name}" for name in BESIDE]
        others = [path.stem for path in sorted(source.glob("docs/*.md")) if path.stem not in {"course", *BESIDE}]
        pages = [f"docs/{name}" for name in others]
        index = [
            course.replace("# The course\n", INTRODUCTION.replace("MADE", made()), 1),
            toctree("The course", entries),
            toctree(
                "Documentation",
                [*pages, "data/README", "figures/tables", "spinet/checkpoints/README", "API reference <api/spinet>"],
            ),
        ]
        (source / "index.md").write_text("\n".join(index), encoding="utf-8")
        settings = ["-c", str(ROOT / "docs"), "-d", str(source / ".cache")]
        _, page = report([source / "figures" / "runs"], source / "figures")
        settings += ["-D", f"html_extra_path={page}"]
        shutil.rmtree(out, ignore_errors=True)
        if code := build_main(["-q", "--fail-on-warning", "--keep-going", *settings, str(source), str(out)]):
            raise SystemExit(code)


def made() -> str:
    """A sentence: when the site is built, and from which commit."""
    commit, dirty = source_state()
    source = f" from commit `{commit[:12]}`{', with changes' if dirty else ''}" if commit else ""
    return f"Built on {datetime.now(UTC):%Y-%m-%d at %H:%M} UTC{source}."


def toctree(caption: str, entries: Iterable[str]) -> str:
    """A section of the side bar, in Markdown."""
    return "\n".join(["```{toctree}", f":caption: {caption}", ":hidden:", "", *entries, "```", ""])


def prepare(notebook: nbformat.NotebookNode) -> None:
    """Removes widget state and progress bars, which pages cannot use, and adds text alternatives to images."""
    notebook.metadata.pop("widgets", None)
    for cell in notebook.cells:
        if cell.cell_type != "code":
            continue
        cell.outputs = [output for output in cell.outputs if set(output.get("data", [])) != WIDGET_ALONE]
        for output in cell.outputs:
            if alt := output.get("metadata", {}).get("image/png", {}).get("alt"):
                cell.metadata["mystnb"] = {"image": {"alt": alt}}


if __name__ == "__main__":
    publish(*map(Path, sys.argv[1:]))
