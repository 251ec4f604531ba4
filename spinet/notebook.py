"""What the notebooks share: source code of the package on show, and figures that answer to controls and clicks."""

from __future__ import annotations

import base64
import inspect
from collections.abc import Callable
from typing import Any

import anywidget
import ipywidgets as widgets
import traitlets
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
      image.style.maxWidth = "100%";
      image.draggable = false;
      const show = () => {
        image.src = "data:image/png;base64," + model.get("png");
        image.alt = model.get("description");
        image.style.cursor = model.get("clickable") ? "crosshair" : "default";
      };
      image.addEventListener("click", (event) => {
        if (!model.get("clickable")) return;
        const box = image.getBoundingClientRect();
        model.set("point", [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height]);
        model.save_changes();
      });
      model.on("change:png", show);
      show();
      el.classList.add("spinet-picture");
      el.appendChild(image);
    }
    export default { render };
    """
    png = traitlets.Unicode().tag(sync=True)  # base64
    description = traitlets.Unicode().tag(sync=True)
    clickable = traitlets.Bool(False).tag(sync=True)
    point = traitlets.List(traitlets.Float()).tag(sync=True)  # of the last click: x, y, shares of width and height


def explore(
    draw: Callable[..., Figure], *, point: tuple[float, float] | None = None, description: str = "", **controls: Any
) -> None:
    """Shows `draw(**values)`, drawn anew whenever a control moves; a plain picture where no front end runs widgets.

    Args:
        draw: makes a figure from the controls' values, and from `point` if that is given.
        point: makes the picture clickable: data coordinates (x, y) in the figure's first axes, at first these.
        description: what the picture shows, for those who cannot see it.
        controls: widgets with a `value`.
    """
    clickable = point is not None
    picture = Picture(description=description, clickable=clickable)
    chosen = {"point": point} if clickable else {}
    shown: list[Figure] = []

    def update(*_: Any) -> bytes:
        figure = draw(**{name: control.value for name, control in controls.items()}, **chosen)
        shown[:] = [figure]
        png = to_png(figure)
        picture.png = base64.b64encode(png).decode()
        return png

    def clicked(change: Any) -> None:
        figure = shown[0]
        axes = figure.axes[0]
        width, height = figure.bbox.width, figure.bbox.height
        x, y = change["new"]
        place = axes.transData.inverted().transform((x * width, (1 - y) * height))
        inside = axes.bbox.contains(x * width, (1 - y) * height)
        if inside:
            chosen["point"] = (float(place[0]), float(place[1]))
            update()

    static = update()
    for control in controls.values():
        control.observe(update, names="value")
    if clickable:
        picture.observe(clicked, names="point")
    box = widgets.VBox([*controls.values(), picture])
    # one output in two forms: a front end that runs widgets takes the first, a page or a print the second
    bundle = dict(box._repr_mimebundle_())
    display({**bundle, "image/png": base64.b64encode(static).decode(), "text/plain": description}, raw=True)
