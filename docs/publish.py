"""Builds the course as a static site that needs no network: executed notebooks in, pages out.

    python docs/publish.py build/notebooks build/site

A broken link or reference stops it.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

import nbformat
from sphinx.cmd.build import build_main

ROOT = Path(__file__).resolve().parent.parent


def publish(notebooks: Path, out: Path) -> None:
    """Builds the site of the executed notebooks in a folder.

    Raises:
        SystemExit: Sphinx found something wrong, and has said what and where.
    """
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder)
        for name in ("docs", "figures", "spinet"):  # what pages show and link to
            shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__", "*.safetensors"))
        shutil.copy(ROOT / "README.md", source)
        (source / "notebooks").mkdir()
        entries = []
        for path in sorted(notebooks.glob("*.ipynb")):
            if (ROOT / "notebooks" / path.name).exists():  # not one that was renamed since it was executed
                notebook = nbformat.read(path, as_version=4)
                prepare(notebook)
                nbformat.write(notebook, source / "notebooks" / path.name)
                number, _, name = path.stem.partition("_")
                entries.append(f"{number} · {name.replace('_', ' ').capitalize()} <notebooks/{path.stem}>")
        index = (source / "docs" / "index.md").read_text(encoding="utf-8")
        (source / "index.md").write_text(index.replace("notebooks/*", "\n".join(entries)), encoding="utf-8")
        shutil.rmtree(out, ignore_errors=True)
        options = ["-q", "-E", "--fail-on-warning", "--keep-going", "-c", str(ROOT / "docs"), "-d", str(source / ".cache")]
        if code := build_main([*options, str(source), str(out)]):
            raise SystemExit(code)


def prepare(notebook: nbformat.NotebookNode) -> None:
    """Leaves out the state of widgets, which no page can use, and gives pictures their words."""
    notebook.metadata.pop("widgets", None)
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if alt := output.get("metadata", {}).get("image/png", {}).get("alt"):
                cell.metadata["mystnb"] = {"image": {"alt": alt}}


if __name__ == "__main__":
    publish(*map(Path, sys.argv[1:]))
