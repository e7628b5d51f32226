"""Which contig of a reference another file means. Names are matched as they are; aliases only on request."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Literal

from genomamba.data.compressed import PathLike
from genomamba.errors import RegionError

Aliases = Mapping[str, str] | Literal["auto"]

_PREFIXES = ("", "chr", "Chr", "CHR")
_PREFIXED = re.compile(r"(?:chr)?(.+)", re.IGNORECASE)
_MITOCHONDRIAL = ("M", "MT")
_NAMES_SHOWN = 6


def alias(name: str, have: Mapping[str, int], length: int | None = None) -> str | None:
    """The other spelling of ``name`` in ``have``: with or without ``chr``, M for MT.

    Args:
        name: a contig that ``have`` lacks.
        have: names and lengths of the reference's contigs.
        length: of ``name``, where it is known. A contig of another length is no match; where it is not known, the
            caller has to verify the match, for example by the bases of REF.

    Returns:
        The one match; None where there is none, or more than one.
    """
    found = _PREFIXED.fullmatch(name)
    if found is None:
        return None
    core = found.group(1)
    cores = _MITOCHONDRIAL if core.upper() in _MITOCHONDRIAL else (core,)
    spellings = {prefix + each for prefix in _PREFIXES for each in cores} - {name}
    matches = [each for each in spellings if each in have and length in (None, have[each])]
    return matches[0] if len(matches) == 1 else None


def match_contigs(
    wanted: Mapping[str, int | None],
    have: Mapping[str, int],
    *,
    aliases: Aliases | None = None,
    file: PathLike | None = None,
    reference: PathLike | None = None,
) -> dict[str, str]:
    """The reference's name for each wanted contig that it has.

    Args:
        wanted: names that a file uses, with their lengths where it states them.
        have: names and lengths of the reference's contigs.
        aliases: None matches equal names only; ``auto`` also what ``alias`` finds; a mapping from wanted names to
            the reference's is followed as it stands.
        file: the file that wants them, for the message.
        reference: the reference, for the message.

    Returns:
        Wanted name to the reference's; contigs that it lacks are left out, for the caller to skip.

    Raises:
        RegionError: none of the wanted contigs is there, or ``aliases`` names one that is not.
    """
    given: Mapping[str, str] = {} if aliases is None or aliases == "auto" else aliases
    for name, target in given.items():
        if target not in have:
            raise RegionError(
                f"{reference or 'the reference'} has no contig {target!r}",
                f"it has {_listed(have)}",
                field="alias",
                value=f"{name}={target}",
            )
    matched: dict[str, str] = {}
    for name, length in wanted.items():
        if name in given:
            matched[name] = given[name]
        elif name in have:
            matched[name] = name
        elif aliases == "auto" and (other := alias(name, have, length)):
            matched[name] = other
    if wanted and not matched:
        helps = aliases is None and any(alias(name, have, length) for name, length in wanted.items())
        raise RegionError(
            f"no contig in common: here {_listed(wanted)}; in {reference or 'the reference'} {_listed(have)}",
            "pass --contig-aliases auto to match these names" if helps else "give files of one and the same assembly",
            file=file,
        )
    return matched


def _listed(names: Iterable[str]) -> str:
    every = list(names)
    return ", ".join(every[:_NAMES_SHOWN]) + (f", … ({len(every)} in all)" if len(every) > _NAMES_SHOWN else "")
