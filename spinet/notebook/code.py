"""Displayed source code, and printed checks."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from IPython.display import Markdown


def source(thing: Any, start: str | None = None, stop: str | None = None) -> Markdown:
    """The source code of a function, class or module of the package.

    Args:
        thing: the function, class or module.
        start: text in the first line to show; by default the first line.
        stop: text in the last line to show, at or after the first; by default the last line.

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


def check(what: str, ours: Any, theirs: Any, *, tolerance: float = 1e-4) -> None:
    """Asserts that two results are equal, and prints their name and the largest difference.

    Args:
        what: name of the results.
        ours, theirs: numbers, arrays or tensors, or lists of them.
        tolerance: allowed difference, relative to the largest of their values.

    Raises:
        AssertionError: they differ by more than the tolerance, or in number or shape.
    """
    pairs = zip(ours, theirs, strict=True) if isinstance(ours, list | tuple) else [(ours, theirs)]
    numbers, difference, largest = 0, 0.0, 0.0
    for one, other in pairs:
        a, b = (torch.as_tensor(value).detach().double() for value in (one, other))
        assert a.shape == b.shape, f"{what}: shapes {tuple(a.shape)} and {tuple(b.shape)}"
        numbers += a.numel()
        difference = max(difference, (a - b).abs().max().item() if a.numel() else 0.0)
        largest = max(largest, b.abs().max().item() if b.numel() else 0.0)
    assert difference <= tolerance * max(largest, 1e-12), (
        f"{what}: differ by {difference:.2g}, values up to {largest:.2g}"
    )
    print(f"{what}: {numbers:,} numbers up to {largest:.3g}, largest difference {difference:.1g}")


def _line(lines: list[str], text: str, begin: int, thing: Any) -> int:
    for index in range(begin, len(lines)):
        if text in lines[index]:
            return index
    raise ValueError(f"no line of {thing.__name__} has {text!r}")
