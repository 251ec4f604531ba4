"""Settings by name: `section.field` of the configuration, or `system`, and a JSON value."""

from __future__ import annotations

import inspect
import io
import json
import tokenize
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from difflib import get_close_matches
from typing import Any, Literal, get_args, get_origin, get_type_hints

from spinet.config.baselines import BASELINES
from spinet.config.presets import PRESETS, Preset
from spinet.config.schema import Config, ConfigError
from spinet.config.stored import from_dict, to_dict

Overrides = Mapping[str, Any]
"""JSON values by field name, such as `{"train.iterations": 200}`; the name `system` selects SPINet or a baseline."""

SYSTEM = "system"


def find_preset(name: str) -> Preset:
    """The preset with this name. Raises `ConfigError` if there is none."""
    if name not in PRESETS:
        raise ConfigError(f"no preset {name!r}; there are {', '.join(PRESETS)}")
    return PRESETS[name]


def override(start: Preset, values: Overrides) -> Preset:
    """Replaces some fields of a preset's configuration. The system is set first.

    Raises:
        ConfigError: a field does not exist, or its value is invalid.
    """
    given = dict(values)
    config = start.with_system(given.pop(SYSTEM)) if SYSTEM in given else start.config
    content = to_dict(config)
    names = _flat(content)
    for name, value in given.items():
        if name not in names:
            owners = [system for system, of in BASELINES.items() if name in {f"baseline.{f.name}" for f in fields(of)}]
            if owners:
                raise ConfigError(f"{name} exists only with system {' or '.join(owners)}; set the system, too")
            near = get_close_matches(name, names, n=1)
            raise ConfigError(f"no configuration field {name!r}" + (f"; did you mean {near[0]!r}?" if near else ""))
        section, field = name.split(".")
        content[section][field] = value
    return replace(start, config=from_dict(content))


def differences(config: Config, start: Preset) -> dict[str, Any]:
    """The values with which `override` turns the preset into `config`."""
    changed: dict[str, Any] = {}
    base = start.config
    if (system := system_of(config)) != system_of(base):
        changed[SYSTEM] = system
        base = start.with_system(system)
    before = _flat(to_dict(base))
    return changed | {name: value for name, value in _flat(to_dict(config)).items() if value != before[name]}


def setting(config: Config, name: str) -> Any:
    """The value of a field by its name in overrides, such as "train.seed"."""
    section, field = name.split(".")
    return getattr(getattr(config, section), field)


def system_of(config: Config) -> str:
    """The name of the system: "spinet" or a baseline."""
    return config.baseline.system if config.baseline else "spinet"


def _flat(content: Mapping[str, Any]) -> dict[str, Any]:
    sections = {section: values for section, values in content.items() if isinstance(values, Mapping)}
    return {f"{section}.{field}": value for section, values in sections.items() for field, value in values.items()}


def parse_overrides(texts: Iterable[str]) -> dict[str, Any]:
    """Parses overrides such as `train.iterations=200`, `input.crop=[256,512]`, `model.backbone=resnet18`.

    Raises:
        ConfigError: a text has no "=", or a name occurs twice.
    """
    values: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise ConfigError(f"{text!r} is not a setting; write section.field=value, such as train.iterations=200")
        if name in values:
            raise ConfigError(f"{name} is set twice")
        values[name] = parse_value(value)
    return values


def parse_value(text: str) -> Any:
    """Parses a value from the command line: JSON, or Python's None, True, False; everything else is a string."""
    words = {"None": None, "True": True, "False": False}
    try:
        return words[text] if text in words else json.loads(text)
    except json.JSONDecodeError:
        return text


def option_of(name: str) -> str:
    """The `spinet train` option that sets a field."""
    return f"--{name.replace('_', '-')}"


def as_options(values: Overrides) -> list[str]:
    """The overrides as `spinet train` options."""
    options = []
    for name, value in values.items():
        option = option_of(name)
        if isinstance(value, bool):
            options.append(option if value else option.replace(".", ".no-", 1))
        else:
            options += [option, *map(str, value if isinstance(value, list | tuple) else [value])]
    return options


@dataclass(frozen=True)
class Field:
    """A configuration field, as shown on the command line."""

    name: str  # section.field
    comment: str  # the comment on the field's line in the source
    defaults: dict[str, Any]  # by preset; by system for baseline settings
    metavar: str  # placeholder for a value
    flag: bool  # takes no value
    several: bool  # takes several values


def document() -> dict[str, list[Field]]:
    """All configuration fields, by section. A setting shared by several baselines is listed once."""
    presets = {name: to_dict(preset.config) for name, preset in PRESETS.items()}
    sections: dict[str, list[Field]] = {}
    for section, kind in get_type_hints(Config).items():
        if section != "baseline":
            values = {name: content[section] for name, content in presets.items()}
            sections[section] = list(_fields(section, kind, values))
    shared: dict[str, Field] = {}
    for system, kind in BASELINES.items():
        for found in _fields("baseline", kind, {system: to_dict(PRESETS["tiny"].with_system(system))["baseline"]}):
            shared.setdefault(found.name, found).defaults.update(found.defaults)
    shared.pop("baseline.system")
    return {**sections, "baseline": list(shared.values())}


def _fields(section: str, kind: type, values: Mapping[str, Mapping[str, Any]]) -> Iterator[Field]:
    comments, hints = _comments(kind), get_type_hints(kind)
    for field in fields(kind):
        hint = hints[field.name]
        optional = type(None) in get_args(hint)
        if optional:
            hint = next(part for part in get_args(hint) if part is not type(None))
        one = get_args(hint)[0] if get_origin(hint) is tuple else hint
        choices = "{" + ",".join(map(str, get_args(one))) + "}"
        value = choices if get_origin(one) is Literal else one.__name__.upper()
        yield Field(
            name=f"{section}.{field.name}",
            comment=comments.get(field.name, ""),
            defaults={name: content[field.name] for name, content in values.items()},
            metavar=f"{value}|None" if optional else value,
            flag=hint is bool,
            several=get_origin(hint) is tuple,
        )


def _comments(kind: type) -> dict[str, str]:
    """The comment on the line of each field of a dataclass."""
    found, name = {}, ""
    for token in tokenize.generate_tokens(io.StringIO(inspect.getsource(kind)).readline):
        if token.type == tokenize.NAME and not token.line[: token.start[1]].strip():
            name = token.string  # the first name on its line
        elif token.type == tokenize.COMMENT:
            found[name] = token.string.lstrip("# ")
    return found
