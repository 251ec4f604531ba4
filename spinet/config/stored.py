"""Converts configurations to and from JSON values, and checks every value."""

from __future__ import annotations

from typing import Any

from pydantic import TypeAdapter, ValidationError

from spinet.config.bounds import complaints
from spinet.config.schema import Config, ConfigError

_ADAPTER = TypeAdapter(Config)  # costs 20 ms to make

BEFORE = {"model": {"equal_taps": False}}
"""Values of fields that older weights and records lack: the behaviour before the field existed."""


def to_dict(config: Config) -> dict[str, Any]:
    """The configuration as JSON values."""
    return _ADAPTER.dump_python(config, mode="json")


def from_dict(values: dict[str, Any]) -> Config:
    """The configuration from the values that `to_dict` returned.

    Raises:
        ConfigError: a field is unknown, its value is not allowed, or a number is out of its bounds (see `bounds`).
    """
    sections = {name: BEFORE.get(name, {}) | part if isinstance(part, dict) else part for name, part in values.items()}
    try:
        config = _ADAPTER.validate_python(sections)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"configuration field {field}: {first['msg']}, got {first['input']!r}") from None
    if found := complaints(config):
        raise ConfigError(f"configuration field {'; '.join(found)}")
    return config


def checked(config: Config) -> Config:
    """Returns the configuration after checking all its fields. Raises `ConfigError` like `from_dict`."""
    return from_dict(_ADAPTER.dump_python(config, warnings=False))
