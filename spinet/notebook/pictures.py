"""Figures with text alternatives, controls and clicks."""

from __future__ import annotations

import base64
import os
import traceback
from collections.abc import Callable
from typing import Any

import anywidget
import ipywidgets as widgets
import numpy as np
import traitlets
from IPython import get_ipython
from IPython.display import HTML, display

from spinet.figures.style import Figure, to_png
from spinet.pages import flipbook


class Picture(anywidget.AnyWidget):
    """An image that reports the position of clicks."""

    _esm = """
    function render({ model, el }) {
      const image = document.createElement("img");
      const message = document.createElement("pre");
      image.draggable = false;
      message.setAttribute("role", "alert");
      const show = () => {
        image.src = "data:image/png;base64," + model.get("png");
        image.alt = model.get("description");
        image.style.width = model.get("width") + "px";
        image.style.cursor = model.get("clickable") ? "crosshair" : "default";
        message.textContent = model.get("message");
        message.hidden = !message.textContent;
        image.style.opacity = message.hidden ? 1 : 0.3;
      };
      image.addEventListener("click", (event) => {
        if (!model.get("clickable")) return;
        const box = image.getBoundingClientRect();
        model.set("point", [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height]);
        model.save_changes();
      });
      model.on("change", show);
      show();
      el.classList.add("spinet-picture");
      el.append(image, message);
    }
    export default { render };
    """
    _css = """
    .spinet-picture { max-width: 100%; }
    .spinet-picture img { max-width: 100%; }
    .spinet-picture pre { color: #b00020; white-space: pre-wrap; }
    """
    png = traitlets.Unicode().tag(sync=True)  # base64
    width = traitlets.Float().tag(sync=True)  # CSS pixels, unless the page is narrower
    description = traitlets.Unicode().tag(sync=True)
    message = traitlets.Unicode().tag(sync=True)  # an error, shown below the outdated image, which becomes pale
    clickable = traitlets.Bool(False).tag(sync=True)
    point = traitlets.List(traitlets.Float()).tag(sync=True)  # last click: x, y, as shares of width and height

    def show(self, figure: Figure) -> bytes:
        """Displays a figure, and returns it as PNG."""
        png = to_png(figure)
        with self.hold_sync():  # one message, one redraw
            self.png = base64.b64encode(png).decode()
            self.width = figure.bbox.width
            self.message = ""
        return png


def explore(
    draw: Callable[..., Figure],
    *,
    point: tuple[float, float] | None = None,
    description: str = "",
    page: Callable[[], HTML] | None = None,
    **controls: Any,
) -> None:
    """Shows `draw(**values)` and redraws it when a control changes; a static image if the front end runs no widgets.

    If the environment variable SPINET_PAGES is set, the output also has a flipbook for pages without a kernel: one
    series per control, in which the other controls keep their start values. `page` replaces the flipbook.

    The front end sends a change only after the previous one is drawn, and then only the newest. An error in the first
    drawing is raised in the cell; an error in a later drawing is shown below the image.

    Args:
        draw: makes a figure from the controls' values, and from `point` if that is given.
        point: makes the image clickable: the start point (x, y), in data coordinates of the figure's first axes.
        description: text alternative of the image.
        page: makes what pages without a kernel show, such as a `similarity_map`.
        controls: widgets with a `value`.
    """
    picture = Picture(description=description, clickable=point is not None)
    start = {name: control.value for name, control in controls.items()}
    chosen = {} if point is None else {"point": point}

    def draw_now() -> Figure:
        return draw(**{name: control.value for name, control in controls.items()}, **chosen)

    figure = draw_now()
    static = picture.show(figure)

    def redraw(*_: Any) -> None:
        nonlocal figure
        try:
            figure = draw_now()
            picture.show(figure)
        except Exception:  # show the reader any error of the notebook's own function
            picture.message = traceback.format_exc()

    def clicked(change: Any) -> None:
        x, y = change["new"]
        axes = figure.axes[0]
        pixel = (x * figure.bbox.width, (1 - y) * figure.bbox.height)
        if axes.bbox.contains(*pixel):
            column, row = axes.transData.inverted().transform(pixel)
            chosen["point"] = (float(column), float(row))
            redraw()

    for control in controls.values():
        control.observe(redraw, names="value")
    picture.observe(clicked, names="point")
    box = widgets.VBox([*controls.values(), picture])
    # one output in several forms: front ends with widgets use the first, pages and prints another
    forms = {
        "application/vnd.jupyter.widget-view+json": box.get_view_spec(),
        "image/png": base64.b64encode(static).decode(),
        "text/plain": description,
    }
    if os.environ.get(PAGES) and page:
        forms["text/html"] = page().data
    elif os.environ.get(PAGES) and controls and point is None:
        books, first = {}, {}
        for name, control in controls.items():
            label, positions = control.description or name, _positions(control)
            books[label] = [(title, draw(**start | {name: value})) for title, value in positions]
            first[label] = [value for _, value in positions].index(control.value)
        forms["text/html"] = flipbook(books, description=description, first=first).data
    display(forms, metadata={"image/png": _facts(figure, description)}, raw=True)


PAGES = "SPINET_PAGES"
"""Environment variable: `explore` also makes what pages without a kernel show, which takes time (`make notebooks`)."""

FRAMES = 7
"""Number of a slider's positions in a flipbook."""


def _positions(control: Any) -> list[tuple[str, Any]]:
    """The values of a control in a flipbook, each with its name: all options, or some positions of a slider."""
    if hasattr(control, "options"):
        pairs = [option if isinstance(option, tuple) else (option, option) for option in control.options]
        return [(str(name), value) for name, value in pairs]
    if isinstance(control.value, bool):
        return [("off", False), ("on", True)]
    steps = round((control.max - control.min) / control.step)
    chosen = np.unique(np.linspace(0, steps, min(FRAMES, steps + 1)).round().astype(int))
    kind = type(control.value)
    values = {kind(round(control.min + step * control.step, 9)) for step in chosen.tolist()} | {control.value}
    return [(f"{value:g}", value) for value in sorted(values)]


def _facts(figure: Figure, alt: str) -> dict[str, Any]:
    """Metadata of an image for a page: size in CSS pixels (half the PNG's pixels), and text alternative."""
    return {"width": round(figure.bbox.width), "height": round(figure.bbox.height), "alt": alt}


def described(figure: Figure, words: str) -> Figure:
    """The figure, with what it shows in words: for those who cannot see it, and for a page that has not loaded it."""
    figure.set_label(" ".join(words.split()))
    return figure


def _display(figure: Figure) -> tuple[bytes, dict[str, Any]]:
    """A figure at the end of a cell, as large and as sharp as in `explore`; its titles stand for missing words."""
    titles = [figure.get_suptitle(), *(axes.get_title() for axes in figure.axes)]
    words = figure.get_label() or "; ".join(" ".join(title.split()) for title in titles if title) or "a figure"
    return to_png(figure), _facts(figure, str(words))


if shell := get_ipython():
    shell.display_formatter.formatters["image/png"].for_type(Figure, _display)
