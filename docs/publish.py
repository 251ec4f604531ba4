"""Builds the course as a static site that needs no network: executed notebooks in, pages out.

    python docs/publish.py build/notebooks build/site

A broken link or reference stops it.
"""

from __future__ import annotations

import re
import shutil
import sys
import tempfile
from pathlib import Path

import nbformat
from sphinx.cmd.build import build_main

from spinet.report import report

ROOT = Path(__file__).resolve().parent.parent
WIDGET_ALONE = {"application/vnd.jupyter.widget-view+json", "text/plain"}


def publish(notebooks: Path, out: Path) -> None:
    """Builds the site of the executed notebooks in a folder, in the order and under the titles of the README.

    Raises:
        FileNotFoundError: one of them has not been executed.
        SystemExit: Sphinx found something wrong, and has said what and where.
    """
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder)
        for name in ("docs", "figures", "spinet"):  # what pages show and link to
            shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__", "*.safetensors"))
        shutil.copy(ROOT / "README.md", source)
        readme = (source / "README.md").read_text(encoding="utf-8")
        (source / "notebooks").mkdir()
        entries = []
        for title, stem in re.findall(r"\[(\d\d [^\]]+)\]\(notebooks/(\w+)\.ipynb\)", readme):
            notebook = nbformat.read(notebooks / f"{stem}.ipynb", as_version=4)
            prepare(notebook)
            nbformat.write(notebook, source / "notebooks" / f"{stem}.ipynb")
            entries.append(f"{title} <notebooks/{stem}>")
        index = (source / "docs" / "index.md").read_text(encoding="utf-8").replace("notebooks/*", "\n".join(entries))
        settings = ["-c", str(ROOT / "docs"), "-d", str(source / ".cache")]
        _, page = report([source / "figures" / "runs"], source / "figures")
        settings += ["-D", f"html_extra_path={page}"]
        (source / "index.md").write_text(index, encoding="utf-8")
        shutil.rmtree(out, ignore_errors=True)
        if code := build_main(["-q", "--fail-on-warning", "--keep-going", *settings, str(source), str(out)]):
            raise SystemExit(code)


def prepare(notebook: nbformat.NotebookNode) -> None:
    """Leaves out what no page can use, the state of widgets and bars of progress, and gives pictures their words."""
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
