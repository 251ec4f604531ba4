"""Settings by name: `section.field` of the configuration, or `system`, and a JSON value."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from difflib import get_close_matches
from typing import Any

from spinet.config import PRESETS, Config, ConfigError, Preset, from_dict, to_dict

Overrides = Mapping[str, Any]
"""JSON values by name, such as 200 by `train.iterations`; `system` is SPINet or a baseline."""

SYSTEM = "system"

CAMPAIGNS: dict[str, dict[str, Any]] = {
    "synthcity": {  # for scenes of 256 × 512 pixels
        "input.crop": [128, 256],
        "input.scale": [0.375, 0.625],
        "input.test_scale": 0.5,
        "input.workers": 0,
        "train.iterations": 300,
        "train.warmup": 20,
        "train.checkpoint_every": 100,
    },
    "dsb2018": {  # a third of the pixels of the run in the README, and the settings that it found to help
        "input.crop": [192, 192],
        "input.scale": [0.6, 1.0],
        "input.test_scale": 0.75,
        "input.workers": 0,
        "objective.samples_per_image": 96,
        "objective.sampling": "instance",
        "model.reach": 80,
        "train.iterations": 300,
        "train.warmup": 20,
        "train.checkpoint_every": 100,
        "inference.top": 1500,
        "inference.fill_threshold": 0.1,
        "inference.connected": True,
    },
}
"""What the campaigns on small data change of the preset tiny: half the resolution, minutes of one core for each run."""


def find_preset(name: str) -> Preset:
    """Raises `ConfigError` if there is no such preset."""
    if name not in PRESETS:
        raise ConfigError(f"no preset {name!r}; there are {', '.join(PRESETS)}")
    return PRESETS[name]


def find_campaign(name: str) -> dict[str, Any]:
    """Raises `ConfigError` if there is no such campaign."""
    if name not in CAMPAIGNS:
        raise ConfigError(f"no campaign {name!r}; there are {', '.join(CAMPAIGNS)}")
    return CAMPAIGNS[name]


def override(start: Preset, values: Overrides) -> Preset:
    """The preset with some fields of its configuration replaced, after its system.

    Raises:
        ConfigError: there is no such field, or it does not take the value.
    """
    fields = dict(values)
    config = start.with_system(fields.pop(SYSTEM)) if SYSTEM in fields else start.config
    content = to_dict(config)
    names = _flat(content)
    for name, value in fields.items():
        if name not in names:
            near = get_close_matches(name, names, n=1)
            raise ConfigError(f"no configuration field {name!r}" + (f"; did you mean {near[0]!r}?" if near else ""))
        section, field = name.split(".")
        content[section][field] = value
    return replace(start, config=from_dict(content))


def differences(config: Config, start: Preset) -> dict[str, Any]:
    """What `override` needs to make `config` of a preset."""
    changed: dict[str, Any] = {}
    base = start.config
    if (system := system_of(config)) != system_of(base):
        changed[SYSTEM] = system
        base = start.with_system(system)
    before = _flat(to_dict(base))
    return changed | {name: value for name, value in _flat(to_dict(config)).items() if value != before[name]}


def system_of(config: Config) -> str:
    """SPINet's name, or that of the baseline."""
    return config.baseline.system if config.baseline else "spinet"


def _flat(content: Mapping[str, Any]) -> dict[str, Any]:
    sections = {section: fields for section, fields in content.items() if isinstance(fields, Mapping)}
    return {f"{section}.{field}": value for section, fields in sections.items() for field, value in fields.items()}


def parse_overrides(texts: Iterable[str]) -> dict[str, Any]:
    """Overrides from the command line: `train.iterations=200`, `input.crop=[256,512]`, `model.backbone=resnet18`.

    A value is JSON; what is no JSON is taken as a string.

    Raises:
        ConfigError: a text has no "=", or a name comes twice.
    """
    values: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise ConfigError(f"{text!r} is no setting; write section.field=value, such as train.iterations=200")
        if name in values:
            raise ConfigError(f"{name} is set twice")
        try:
            values[name] = json.loads(value)
        except json.JSONDecodeError:
            values[name] = value
    return values


def as_options(values: Overrides) -> list[str]:
    """The same as options of `spinet train`."""
    options = []
    for name, value in values.items():
        if name == SYSTEM:
            options += ["--system", value]
            continue
        section, field = name.replace("_", "-").split(".")
        if isinstance(value, bool):
            options.append(f"--{section}.{'' if value else 'no-'}{field}")
        else:
            parts = value if isinstance(value, list | tuple) else [value]
            options += [f"--{section}.{field}", *map(str, parts)]
    return options
