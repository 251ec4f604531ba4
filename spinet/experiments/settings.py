"""Settings by name: `section.field` of the configuration, and a JSON value."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any

from spinet.config import PRESETS, Config, ConfigError, from_dict, to_dict

Overrides = Mapping[str, Any]
"""Values by name, such as `{"train.iterations": 200, "input.crop": [256, 512]}`."""


def find_preset(name: str) -> Config:
    """Raises `ConfigError` if there is no such preset."""
    if name not in PRESETS:
        raise ConfigError(f"no preset {name!r}; there are {', '.join(PRESETS)}")
    return PRESETS[name]


def override(config: Config, values: Overrides) -> Config:
    """The configuration with some of its fields replaced.

    Raises:
        ConfigError: there is no such field, or it does not take the value.
    """
    content = to_dict(config)
    names = _flat(content)
    for name, value in values.items():
        if name not in names:
            near = get_close_matches(name, names, n=1)
            raise ConfigError(f"no configuration field {name!r}" + (f"; did you mean {near[0]!r}?" if near else ""))
        section, field = name.split(".")
        content[section][field] = value
    return from_dict(content)


def differences(config: Config, base: Config) -> dict[str, Any]:
    """What `override` needs to make `config` of `base`."""
    before = _flat(to_dict(base))
    return {name: value for name, value in _flat(to_dict(config)).items() if value != before[name]}


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
        section, field = name.replace("_", "-").split(".")
        if isinstance(value, bool):
            options.append(f"--{section}.{'' if value else 'no-'}{field}")
        else:
            parts = value if isinstance(value, list | tuple) else [value]
            options += [f"--{section}.{field}", *map(str, parts)]
    return options
