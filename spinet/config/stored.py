"""Configurations as JSON values, and the check that every value makes sense."""

from __future__ import annotations

from typing import Any

from pydantic import TypeAdapter, ValidationError

from spinet.config.bounds import complaints
from spinet.config.schema import Config, ConfigError

_ADAPTER = TypeAdapter(Config)  # costs 20 ms to make

BEFORE = {"model": {"equal_taps": False}}
"""How the code behaved before these fields existed: what they mean in weights and records that lack them."""


def to_dict(config: Config) -> dict[str, Any]:
    """The configuration as JSON values."""
    return _ADAPTER.dump_python(config, mode="json")


def from_dict(values: dict[str, Any]) -> Config:
    """The configuration that `to_dict` wrote.

    Raises:
        ConfigError: a field is unknown, its value is not allowed, or a number makes no sense (see `bounds`).
    """
    sections = {name: BEFORE.get(name, {}) | part if isinstance(part, dict) else part for name, part in values.items()}
    try:
        config = _ADAPTER.validate_python(sections)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"configuration field {place}: {first['msg']}, got {first['input']!r}") from None
    if found := complaints(config):
        raise ConfigError(f"configuration field {'; '.join(found)}")
    return config


def checked(config: Config) -> Config:
    """The configuration itself, whose fields a dataclass does not check. Raises `ConfigError` like `from_dict`."""
    return from_dict(_ADAPTER.dump_python(config, warnings=False))
