"""Options of a command as words on a benchmark's own command line."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import Any


def changed(config: Any, values: dict[str, Any]) -> Any:
    """The dataclass with ``field`` and ``group.field`` set."""
    for name, value in values.items():
        group, _, field = name.rpartition(".")
        new = dataclasses.replace(getattr(config, group), **{field: value}) if group else value
        config = dataclasses.replace(config, **{group or field: new})
    return config


def settings(words: Sequence[str]) -> dict[str, Any]:
    """``epochs=3`` and ``head.strands=both`` by name; values are JSON where they can be read as such."""
    return {name: _value(text) for name, _, text in (word.partition("=") for word in words)}


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text
