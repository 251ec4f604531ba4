"""Data flows one way: who may import whom, read from the `import` statements of the package."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import spinet

ROOT = Path(spinet.__file__).parent

# A part of the package, and all parts that it may import. What is inside a package may import its siblings only where
# the package is named itself. Parts that are not listed stand at the top: they may import everything below them.
ARROWS = {
    "layers": [],
    "bounds": [],
    "config": ["baselines.config", "bounds"],
    "paper": [],
    "runs": [],
    "lock": [],
    "model.backbone": ["layers"],
    "model.fpn": ["layers"],
    "model.filter_sampling": ["layers"],
    "model.panoptic_feature": ["layers"],
    "model.single_shot": ["layers"],
    "model.spinet": ["layers", "config", "model"],
    "objective": ["config", "objective"],
    "data": ["data", "runs"],
    "evaluate": ["evaluate", "data.readers", "data.segments", "runs"],
    "baselines.config": [],
    "baselines": ["baselines", "config", "data", "layers", "mask_logits", "merging", "model", "objective"],
    "weights": ["baselines", "config", "data.segments", "model", "objective", "runs"],
    "precision": ["config"],
    "optimize": ["optimize", "data.segments", "model", "precision", "weights"],
    "mask_logits": [],
    "duplicates": ["config", "mask_logits", "model"],
    "merging": ["config", "data.segments", "duplicates", "mask_logits", "objective"],
    "merging_at_once": ["config", "data.segments", "duplicates", "merging", "objective"],
    "training": [
        "training",
        "baselines",
        "checkpoint",
        "config",
        "data",
        "layers",
        "model",
        "objective",
        "weights",
    ],
    "inference": [
        "baselines",
        "config",
        "data",
        "duplicates",
        "mask_logits",
        "merging",
        "merging_at_once",
        "model",
        "precision",
        "weights",
    ],
    "components": ["config", "data.segments", "inference", "objective"],
    "validate": ["components", "config", "data", "evaluate", "inference", "objective", "weights"],
}

# Parts that are imported by these alone.
ONLY_FROM = {
    "figures": ["figures", "cli", "pictures", "reproduce", "experiments", "notebook", "report"],
    "clustering": ["clustering", "cli", "experiments", "figures"],
    "notebook": [],
    "train": ["cli", "reproduce", "experiments", "benchmark", "figures.__main__"],
    "cli": ["__main__"],
}

# Heavy libraries, and the parts that may import them.
HEAVY = {
    "matplotlib": ["figures", "clustering"],
    "umap": ["figures", "clustering"],
    "seaborn": ["figures", "clustering"],
    "IPython": ["notebook"],
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
INSIDE = {name: path for name, path in MODULES.items() if name}  # all but spinet/__init__.py


def imports(source, name="", package=False):
    """The full names of what a module imports, wherever in it the statements stand."""
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
    """Of full names those in the package, each as the module that it names or lies in; "" is the package itself."""
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
    from .. import layers
    from spinet import predict
"""
    assert local(imports(source, "objective.objective")) == {
        "runs",
        "data.segments",
        "data",
        "objective.losses",
        "objective.targets",
        "layers",
        "",
    }
    assert "numpy.linalg" in imports(source)
    assert local(imports("from . import targets", "objective", package=True)) == {"objective.targets"}
    assert {"layers", "model.spinet", "data.segments", "evaluate"} <= MODULES.keys()
    assert local(imports_of("model.spinet")) >= {"config", "layers", "model.backbone", "model.single_shot"}


@pytest.mark.parametrize("part", ARROWS)
def test_arrows_point_down(part):
    members = [name for name in INSIDE if lies_in(name, part)]
    assert members, f"spinet/{part} is gone: mend the table"
    for name in members:
        wrong = {
            other for other in local(imports_of(name)) if not any(lies_in(other, allowed) for allowed in ARROWS[part])
        }
        assert not wrong, f"spinet.{name} imports {sorted(wrong)}"


def test_every_part_of_the_model_has_an_arrow():
    parts = {name for name in INSIDE if name.startswith("model.")}
    assert parts == {part for part in ARROWS if part.startswith("model.")}


@pytest.mark.parametrize("part", ONLY_FROM)
def test_what_stands_at_the_top_is_imported_from_the_top_alone(part):
    users = {name for name in INSIDE if any(lies_in(other, part) for other in local(imports_of(name)))}
    assert not {name for name in users if not any(lies_in(name, allowed) for allowed in ONLY_FROM[part])}


@pytest.mark.parametrize("library", HEAVY)
def test_heavy_libraries_stay_where_they_are_needed(library):
    users = {name for name in MODULES if any(lies_in(other, library) for other in imports_of(name))}
    assert not {name for name in users if not any(lies_in(name, allowed) for allowed in HEAVY[library])}


def test_nothing_inside_imports_the_front_door():
    assert not [name for name in INSIDE if "" in local(imports_of(name))]


def test_figures_load_nothing_and_train_nothing():
    for name in INSIDE:
        if lies_in(name, "figures") and name != "figures.__main__":  # the command gathers what is drawn
            parts = {other.split(".")[0] for other in local(imports_of(name))}
            assert not parts & {"train", "validate", "weights", "checkpoint", "model", "objective", "cli"}, name


def test_importing_the_package_is_light():
    heavy = ["matplotlib", "umap", "seaborn", "IPython", "jupyter_core", "notebook", "tensorboard", "papermill"]
    code = f"import sys, spinet; print([name for name in {heavy} if name in sys.modules], 'torch' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[] True"
