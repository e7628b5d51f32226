"""A command's options by their dotted names: what they are, what they are by default, and those that nothing reads."""

from __future__ import annotations

import dataclasses
from collections.abc import Container, Iterable
from typing import Any

from genomamba.errors import ConfigError


def flat(tree: Any, prefix: str = "") -> dict[str, Any]:
    """The leaves of nested dictionaries: ``{"model": {"d_model": 8}}`` is ``{"model.d_model": 8}``."""
    if not isinstance(tree, dict):
        return {prefix.removesuffix("."): tree}
    return {name: leaf for key, value in tree.items() for name, leaf in flat(value, f"{prefix}{key}.").items()}


def defaults(config: Any) -> dict[str, Any]:
    """Of the options that have one; groups are dictionaries."""
    found = {}
    for field in dataclasses.fields(config):
        if field.default is not dataclasses.MISSING:
            default = field.default
        elif field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        else:
            continue
        nested = dataclasses.is_dataclass(default) and not isinstance(default, type)
        found[field.name] = dataclasses.asdict(default) if nested else default
    return found


def refuse_unread(config: Any, name: str, reader: str, typed: Container[str]) -> None:
    """For what only another option's value would make the command read.

    In a file a value that is the default is no wish: a ``run.yaml`` names every option.

    Args:
        config: of a command.
        name: of an option, such as ``head.regions``, or of a group of them.
        reader: the option with which it counts, such as ``--head.pooling regions``.
        typed: names of the options that stand on the command line itself.

    Raises:
        ConfigError: it is not what it is by default, or was typed.
    """
    usual = flat(defaults(config))
    for key, value in flat(dataclasses.asdict(config)).items():
        if (key == name or key.startswith(f"{name}.")) and (value != usual[key] or key in typed):
            raise ConfigError(
                f"it counts only with {reader}", "give that too, or leave this out", field=key, value=value
            )


def refuse_typed(names: Container[str], typed: Iterable[str]) -> None:
    """For what a file may say, since other commands read it there.

    Args:
        names: of options, or of groups of them, that the command does not look at.
        typed: see `refuse_unread`.

    Raises:
        ConfigError: one of them was typed.
    """
    for name in sorted(typed):
        if name.partition(".")[0] in names:
            raise ConfigError("this command does not look at it", "leave it out; only a file may name it", field=name)
