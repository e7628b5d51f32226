"""What must stand in a JSON file that a command reads, so that one of an older version or made by hand is named."""

from __future__ import annotations

from os import PathLike
from typing import Any

from genomamba.errors import UserError

#: A type; None for null; a list of one shape, that of every item, or of several, those of its items; a dict of the
#: keys that must be there, and under `EVERY` the shape of all other values; a tuple of what will do as well.
Shape = Any
EVERY = str
NUMBER = (float, int)
_NAMES: dict[Any, str] = {str: "text", int: "a whole number", float: "a number", bool: "true or false", None: "null"}


def check_shape(
    found: Any,
    shape: Shape,
    file: str | PathLike[str],
    remedy: str,
    *,
    error: type[UserError] = UserError,
    field: str = "",
) -> None:
    """Looks whether all is there that ``shape`` asks for; what else stands there is of no concern.

    Args:
        found: what the file holds.
        shape: what is wanted.
        file: where it was read.
        remedy: what to do where it is not so.
        error: to be raised.
        field: the key that ``found`` stands under, dotted.

    Raises:
        UserError: a key is missing, or something else stands there.
    """
    for one in shape if isinstance(shape, tuple) else (shape,):
        if _alike(found, one):
            break
    else:
        raise error(f"expected {_name(shape)}", remedy, file=file, field=field, value=found)
    if isinstance(one, dict):
        for key in dict.fromkeys([*one, *(found if EVERY in one else ())]):
            if key is EVERY:
                continue
            below = f"{field}.{key}" if field else key
            if key not in found:
                raise error("the key is missing", remedy, file=file, field=below)
            check_shape(found[key], one.get(key, one.get(EVERY)), file, remedy, error=error, field=below)
    elif isinstance(one, list):
        shapes = one * len(found) if len(one) == 1 else one
        for number, (item, wanted) in enumerate(zip(found, shapes, strict=True)):
            check_shape(item, wanted, file, remedy, error=error, field=f"{field}[{number}]")


def _alike(found: Any, one: Shape) -> bool:
    """As far as it can be seen from outside."""
    if one is None or isinstance(found, bool):  # which is an int too
        return found is one or one is type(found)
    if isinstance(one, list):
        return isinstance(found, list) and len(one) in (1, len(found))
    return isinstance(found, dict if isinstance(one, dict) else one)


def _name(shape: Shape) -> str:
    if isinstance(shape, tuple):
        return " or ".join(dict.fromkeys("a number" if one in NUMBER else _name(one) for one in shape))
    if isinstance(shape, list):
        return "a list" if len(shape) == 1 else f"a list of {len(shape)}"
    return "keys and values" if isinstance(shape, dict) else _NAMES[shape]
