"""Allowed imports between modules, checked on the `import` statements of the package."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import spinet

ROOT = Path(spinet.__file__).parent

# The parts of the package, lowest first. A part may import the parts in its list, all of which are listed before it, so
# imports have one direction. Inside a package imports are free, but the parts of the model import only the layers.
ARROWS = {
    "paper": "",
    "files": "",
    "config": "",
    "machine": "config",
    "records": "files",
    "data": "files config",
    "synthcity": "files data",
    "model": "config",
    "objective": "config data",
    "system": "config data model",
    "inference": "files config machine data model system",
    "pictures": "inference",
    "baselines": "config data model objective system inference",
    "systems": "config data model objective system inference baselines",
    "weights": "files config data objective system systems",
    "evaluation": "files config data model objective system inference",
    "speed": (
        "paper files config machine records data synthcity model objective system inference baselines systems weights"
    ),
    "training": "files config machine records data synthcity model system systems weights evaluation",
    "experiments": "paper files config records data objective system weights training",
    "figures": "paper files data model system inference evaluation",
    "report": "paper files config records experiments figures",
    "pages": "figures",
    "notebook": "data model synthcity system weights figures pages",
    "options": "config",
}

DOORS = ["reproduce", "figures.__main__", "cli"]
"""The top modules: each may import all parts above, and the top modules before it."""

PARTS_OF_THE_MODEL = ["backbone", "filter_sampling", "fpn", "panoptic_feature", "single_shot"]

# Heavy libraries and the parts that may import them.
HEAVY = {
    "matplotlib": ["figures", "pages"],
    "umap": ["evaluation.clustering"],
    "seaborn": ["figures"],
    "IPython": ["notebook", "pages"],
    "anywidget": ["notebook"],
    "ipywidgets": ["notebook"],
    "notebooks": [],
    "tests": [],
}


def modules():
    """Every module of the package: its name without the leading "spinet.", and its file."""
    found = {}
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()
INSIDE = {name: path for name, path in MODULES.items() if name}  # all except spinet/__init__.py


def imports(source, name="", package=False):
    """The full names of a module's imports, anywhere in the module."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = ["spinet", *name.split(".")]
                above = parents[: len(parents) - node.level + package]
                base = ".".join([*above, base] if base else above)
            found |= {f"{base}.{alias.name}" for alias in node.names}
    return found


def local(names):
    """The modules of the package among full names or around them; "" is the package itself."""
    found = set()
    for name in names:
        head, *parts = name.split(".")
        if head == "spinet":
            while parts and ".".join(parts) not in MODULES:
                parts.pop()
            found.add(".".join(parts))
    return found


def lies_in(name, part):
    return name == part or name.startswith(f"{part}.")


def imports_of(name):
    path = MODULES[name]
    return imports(path.read_text(encoding="utf-8"), name, path.name == "__init__.py")


def test_import_statements_are_understood():
    source = """
import spinet.records as r, numpy.linalg
from spinet.data import segments, PanopticDataset
def lazy():
    from .losses import focal
    from . import targets
    from .. import machine
    from spinet import predict
"""
    assert local(imports(source, "objective.objective")) == {
        "records",
        "data.segments",
        "data",
        "objective.losses",
        "objective.targets",
        "machine",
        "",
    }
    assert "numpy.linalg" in imports(source)
    assert local(imports("from . import targets", "objective", package=True)) == {"objective.targets"}
    assert {"machine", "model.spinet", "data.segments", "evaluation"} <= MODULES.keys()
    assert local(imports_of("model.spinet")) >= {"config", "model.layers", "model.backbone", "model.single_shot"}


def part_of(name):
    return name if name in DOORS else name.split(".")[0]


@pytest.mark.parametrize("part", ARROWS)
def test_arrows_point_down(part):
    members = [name for name in INSIDE if part_of(name) == part]
    assert members, f"spinet/{part} is gone: mend the table"
    for name in members:
        wrong = {other for other in local(imports_of(name)) if part_of(other) not in {part, *ARROWS[part].split()}}
        assert not wrong, f"spinet.{name} imports {sorted(wrong)}"


def test_no_arrow_runs_back_up():
    """The table is ordered, so packages have no cycles."""
    above = set()
    for part, arrows in ARROWS.items():
        assert set(arrows.split()) <= above, f"{part}: {set(arrows.split()) - above}"
        above.add(part)


def test_nothing_below_imports_a_door():
    for name in INSIDE:
        allowed = DOORS[: DOORS.index(part_of(name)) + 1] if part_of(name) in DOORS else []
        assert not {part_of(other) for other in local(imports_of(name))} & {*DOORS} - {*allowed}, name


def test_every_part_has_its_arrows():
    assert {part_of(name) for name in INSIDE} == {*ARROWS, *DOORS}


def test_no_arrow_is_idle():
    for part, arrows in ARROWS.items():
        used = {part_of(other) for name in INSIDE if part_of(name) == part for other in local(imports_of(name))}
        assert set(arrows.split()) <= used, f"{part} no longer imports {set(arrows.split()) - used}"


def test_the_parts_of_the_model_know_only_the_layers():
    for part in PARTS_OF_THE_MODEL:
        assert local(imports_of(f"model.{part}")) <= {"model.layers"}, part


@pytest.mark.parametrize("library", HEAVY)
def test_heavy_libraries_stay_where_they_are_needed(library):
    users = {name for name in MODULES if any(lies_in(other, library) for other in imports_of(name))}
    assert not {name for name in users if not any(lies_in(name, allowed) for allowed in HEAVY[library])}


def test_nothing_inside_imports_the_front_door():
    assert not [name for name in INSIDE if "" in local(imports_of(name))]


def test_importing_the_package_is_light():
    heavy = ["matplotlib", "umap", "seaborn", "IPython", "jupyter_core", "notebook", "tensorboard", "papermill"]
    code = f"""
import sys, spinet
def loaded(names): return [name for name in names if name in sys.modules]
print(loaded({heavy} + ["torch", "timm"]))
names = [getattr(spinet, name).__name__ for name in spinet.__all__]
print(names == spinet.__all__, loaded({heavy} + ["torch"]))
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.splitlines() == ["[]", "True ['torch']"]
