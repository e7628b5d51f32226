"""A configuration in someone else's words, read key by key, so that none is overlooked."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml

from genomamba.errors import CheckpointError, ConfigError

T = TypeVar("T", bool, int, float, str)


class Fields:
    """Takes values out of a mapping and complains of what is left.

    Args:
        values: the mapping.
        path: the file to name in errors.
        prefix: of its keys, in errors.
        said: keys, with their groups, that the user set; one of them without an effect is a mistake.
    """

    def __init__(
        self, values: Mapping[str, Any], path: Path, prefix: str = "", said: Collection[str] = frozenset()
    ) -> None:
        self.values, self.path, self.prefix, self.said = dict(values), path, prefix, said
        self.known: set[str] = set()

    def take(self, key: str, default: T) -> T:
        """The value of ``key``, of the default's type; a whole number passes for a float.

        Raises:
            CheckpointError: a value of another type.
        """
        value = self.raw(key, default)
        if type(default) is float and type(value) is int:
            value = float(value)
        if type(value) is not type(default):
            raise self.error(key, value, f"expected {type(default).__name__}")
        return value

    def raw(self, key: str, default: Any = None) -> Any:
        """The value of ``key`` whatever its type; ``default`` where it is absent or null."""
        self.known.add(key)
        value = self.values.pop(key, None)
        return default if value is None else value

    def group(self, key: str) -> Fields:
        """The mapping under ``key``."""
        value = self.raw(key, {})
        if not isinstance(value, Mapping):
            raise self.error(key, value, "expected a mapping")
        return Fields(value, self.path, f"{self.prefix}{key}.", self.said)

    def done(self, ignored: Collection[str] = ()) -> None:
        """Raises CheckpointError for a key that nobody took, but for those that change no output and nobody set."""
        for key in sorted(self.values):
            name = self.prefix + key
            if key in ignored:
                for said in (said for said in self.said if f"{said}.".startswith(f"{name}.")):
                    accepted = ", ".join(self.prefix + known for known in sorted(self.known))
                    raise CheckpointError(
                        "it changes nothing in a checkpoint of this kind",
                        f"set one of {accepted}",
                        file=self.path,
                        field=said,
                    )
                continue
            near = difflib.get_close_matches(key, self.known, n=1)
            hint = f"the nearest is {near[0]}" if near else f"it knows {', '.join(sorted(self.known))}"
            raise CheckpointError("unknown key", hint, file=self.path, field=name)

    def error(self, key: str, value: Any, problem: str) -> CheckpointError:
        return CheckpointError(
            problem, "change the configuration", file=self.path, field=self.prefix + key, value=value
        )


def with_settings(config: Mapping[str, Any], settings: Sequence[str]) -> dict[str, Any]:
    """The configuration with ``key=value`` or ``group.key=value`` put in, values as in YAML.

    Raises:
        ConfigError: a setting without ``=``, or below a key that holds no mapping.
    """
    merged = {key: dict(value) if isinstance(value, Mapping) else value for key, value in config.items()}
    for setting in settings:
        name, equals, text = setting.partition("=")
        *groups, key = name.split(".")
        target: Any = merged
        for group in groups:
            if target.get(group) is None:
                target[group] = {}
            target = target[group]
            if not isinstance(target, dict):
                raise ConfigError(
                    "there is no such group", "see the original's configuration", field="set", value=setting
                )
        if not equals or not key:
            raise ConfigError("expected key=value", "write it so", field="set", value=setting)
        target[key] = yaml.safe_load(text)
    return merged


def names_of(settings: Sequence[str]) -> frozenset[str]:
    """The keys, with their groups, that ``with_settings`` puts in."""
    return frozenset(setting.partition("=")[0] for setting in settings)


def setting(config: Mapping[str, Any], name: str, default: int) -> int:
    """A whole number at ``group.key`` of a configuration, before it is read as a whole."""
    value: Any = config
    for key in name.split("."):
        value = value.get(key) if isinstance(value, Mapping) else None
    return value if isinstance(value, int) and value > 0 else default
