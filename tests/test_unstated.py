"""The page of unstated choices is generated from the configuration; it is complete and current."""

import re
from dataclasses import fields, is_dataclass

import pytest
from unstated import CODE, CONFIG, PAGE, PINNED, ROOT, SETTLED, Choice, choices, page

from spinet.config import Config
from spinet.paper import URL

SOURCE = '''
Kind = Literal["x", "y"]

class Second:
    """Later in the source, first in Config."""
    a: Kind = "x"  # unstated (§4): for a reason
    b: tuple[int, int] = (1, 2)  # §3.1; in part unstated
    c: int = 3  # stated

class First:
    d: bool = True  # unstated: "on" | "off"
    e: Literal[1, 4] = 4  # unstated; whole
    f: float = (
        0.5
    )  # unstated: over three lines
    g: str = "# unstated"

class Config:
    second: Second = field(default_factory=Second)
    first: First = field(default_factory=First)
'''


def test_marks_are_read():
    assert choices(SOURCE) == [
        Choice("second", "a", '"x"', ('"y"',), "§4: for a reason"),
        Choice("second", "b", "(1, 2)", (), "§3.1; in part unstated"),
        Choice("first", "d", "True", ("False",), '"on" | "off"'),
        Choice("first", "e", "4", ("1",), "whole"),
        Choice("first", "f", "0.5", (), "over three lines"),
    ]


def test_page_shows_every_choice():
    text = page(SOURCE)
    assert f'| `a` | `"x"` | `"y"` | [§4](../{CODE["§4"]}): for a reason |' in text
    assert f"| [§3.1](../{CODE['§3.1']}); in part unstated |" in text
    assert '"on" \\| "off" |' in text  # a bar inside a cell
    assert text.index("### second") < text.index("### first")
    assert all(detail.split(" (")[0] in text for detail, *_ in (*PINNED, *SETTLED))


def test_longer_numbers_are_no_links():
    text = page(SOURCE.replace("(§4)", "(§4.2, Eq. 10, §4)"))
    assert f"§4.2, Eq. 10, [§4](../{CODE['§4']}): for" in text


def test_page_is_current():
    """After a change of a comment or default in spinet/config/schema.py: `make docs`."""
    assert PAGE.read_text(encoding="utf-8") == page(CONFIG.read_text(encoding="utf-8"))


def test_links_lead_somewhere():
    targets = re.findall(r"\]\(([^)]+)\)", PAGE.read_text(encoding="utf-8"))
    assert len(targets) > 20
    for target in targets:
        assert target == URL or (PAGE.parent / target).resolve().is_file(), target
    assert all((ROOT / path).is_file() for path in CODE.values())


@pytest.mark.parametrize("choice", choices(CONFIG.read_text(encoding="utf-8")), ids=lambda c: f"{c.section}.{c.field}")
def test_every_choice_has_a_reason_and_a_field(choice):
    assert len(choice.reason) > 5, "say why, behind `unstated:`"
    section = getattr(Config(), choice.section)
    assert is_dataclass(section)
    assert choice.field in {field.name for field in fields(section)}
    assert eval(choice.default) == getattr(section, choice.field)  # defaults are plain expressions
    assert choice.default not in choice.alternatives
