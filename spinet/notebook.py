"""What the notebooks share: source code of the package on show, and figures that answer to controls and clicks."""

from __future__ import annotations

import base64
import inspect
import traceback
from collections.abc import Callable
from typing import Any

import anywidget
import ipywidgets as widgets
import traitlets
from IPython import get_ipython
from IPython.display import Markdown, display

from spinet.figures.style import Figure, to_png


def source(thing: Any, start: str | None = None, stop: str | None = None) -> Markdown:
    """The source code of a function, class or module of the package.

    Args:
        thing: what to show.
        start: text of the first line to show; by default the whole is shown.
        stop: text of the last line to show, at or after the first; by default the end.

    Raises:
        ValueError: no line has that text.
    """
    lines, number = inspect.getsourcelines(thing)
    first = 0 if start is None else _line(lines, start, 0, thing)
    last = len(lines) - 1 if stop is None else _line(lines, stop, first, thing)
    shown = inspect.cleandoc("\n" + "".join(lines[first : last + 1])).rstrip()
    module = inspect.getmodule(thing)
    place = f"{module.__name__.replace('.', '/')}.py" if module else ""
    return Markdown(f"`{place}`, line {max(number, 1) + first}\n\n```python\n{shown}\n```")


def _line(lines: list[str], text: str, begin: int, thing: Any) -> int:
    for index in range(begin, len(lines)):
        if text in lines[index]:
            return index
    raise ValueError(f"no line of {thing.__name__} has {text!r}")


class Picture(anywidget.AnyWidget):
    """A picture that says where it was clicked."""

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
    message = traitlets.Unicode().tag(sync=True)  # an error, shown below the picture, which pales: it is out of date
    clickable = traitlets.Bool(False).tag(sync=True)
    point = traitlets.List(traitlets.Float()).tag(sync=True)  # of the last click: x, y, shares of width and height

    def show(self, figure: Figure) -> bytes:
        """Puts a figure in, and returns it as PNG."""
        png = to_png(figure)
        with self.hold_sync():  # one message, one redraw
            self.png = base64.b64encode(png).decode()
            self.width = figure.bbox.width
            self.message = ""
        return png


def explore(
    draw: Callable[..., Figure], *, point: tuple[float, float] | None = None, description: str = "", **controls: Any
) -> None:
    """Shows `draw(**values)`, drawn anew whenever a control moves; a plain picture where no front end runs widgets.

    The front end sends a change only when the last one has been drawn, and of several meanwhile only the newest. An
    error of the first drawing is the cell's; one of a later drawing is shown below the picture.

    Args:
        draw: makes a figure from the controls' values, and from `point` if that is given.
        point: makes the picture clickable: data coordinates (x, y) in the figure's first axes, at first these.
        description: what the picture shows, for those who cannot see it.
        controls: widgets with a `value`.
    """
    picture = Picture(description=description, clickable=point is not None)
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
        except Exception:  # whatever the notebook's own function raises, its reader should see
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
    # one output in two forms: a front end that runs widgets takes the first, a page or a print the second
    forms = {
        "application/vnd.jupyter.widget-view+json": box.get_view_spec(),
        "image/png": base64.b64encode(static).decode(),
        "text/plain": description,
    }
    display(forms, metadata={"image/png": _facts(figure, description)}, raw=True)


def _facts(figure: Figure, alt: str) -> dict[str, Any]:
    """What a page is told of a picture: size in CSS pixels, of which the PNG has two for each, and what it shows."""
    return {"width": round(figure.bbox.width), "height": round(figure.bbox.height), "alt": alt}


def _display(figure: Figure) -> tuple[bytes, dict[str, Any]]:
    """A figure at the end of a cell, as large and as sharp as in `explore`."""
    titles = [figure.get_suptitle(), *(axes.get_title() for axes in figure.axes)]
    return to_png(figure), _facts(figure, "; ".join(title for title in titles if title) or "a figure")


if shell := get_ipython():
    shell.display_formatter.formatters["image/png"].for_type(Figure, _display)
