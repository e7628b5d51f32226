"""Stretches of a contig. Inside, 0-based and half-open; 1-based inclusive only in region strings."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from genomamba.errors import RegionError

STRANDS = ("+", "-", ".")
_RANGE = re.compile(r"([0-9][0-9,]*)(?:-([0-9][0-9,]*)?)?", re.ASCII)


@dataclass(frozen=True, slots=True, order=True)
class Interval:
    """``[start, end)`` on one contig, 0-based.

    It may hang over either end of its contig (a window around a base near the edge does): readers refuse that,
    and ``clip`` says how much is to be padded.

    Args:
        contig: name of the contig.
        start: first base, 0-based.
        end: one past the last base; ``end == start`` is empty.
        strand: ``+``, ``-`` (read as the reverse complement) or ``.`` (none given; read as ``+``).

    Raises:
        RegionError: no contig, ``end < start``, or an unknown strand.
    """

    contig: str
    start: int
    end: int
    strand: str = "+"

    def __post_init__(self) -> None:
        if not self.contig:
            raise RegionError("the contig has no name", "name one", field="contig")
        if self.end < self.start:
            raise RegionError(
                f"end {self.end} lies before start {self.start}",
                "0-based half-open coordinates need start <= end",
                field="interval",
                value=f"{self.contig} {self.start} {self.end}",
            )
        if self.strand not in STRANDS:
            raise RegionError("unknown strand", "use +, - or .", field="strand", value=self.strand)

    def __str__(self) -> str:
        """As samtools writes it: 1-based, inclusive."""
        return f"{self.contig}:{self.start + 1}-{self.end}"

    @property
    def length(self) -> int:
        """Number of bases."""
        return self.end - self.start

    def overlaps(self, other: Interval) -> bool:
        """Whether the two share a base; strands do not matter."""
        return self.contig == other.contig and max(self.start, other.start) < min(self.end, other.end)

    def contains(self, other: Interval) -> bool:
        """Whether each base of ``other`` lies within; strands do not matter."""
        return self.contig == other.contig and self.start <= other.start and other.end <= self.end

    def shift(self, bases: int) -> Interval:
        """Moved towards higher coordinates, whatever the strand."""
        return replace(self, start=self.start + bases, end=self.end + bases)

    def resize(self, width: int) -> Interval:
        """``width`` bases around the same centre.

        The centre of ``n`` bases is base ``start + n // 2``, and it becomes base ``width // 2`` of the result.
        """
        start = self.start + self.length // 2 - width // 2
        return replace(self, start=start, end=start + width)

    def clip(self, contig_length: int) -> tuple[Interval, int, int]:
        """The part on a contig of ``contig_length`` bases, and the bases missing at its low and at its high end.

        An interval that lies off the contig altogether gives an empty part at the nearer edge, and all of its
        bases as missing on that side.
        """
        start = min(max(self.start, 0), contig_length)
        end = min(max(self.end, 0), contig_length)
        low = min(max(-self.start, 0), self.length)
        return replace(self, start=start, end=end), low, self.length - low - (end - start)


def parse_region(text: str, contigs: Mapping[str, int] | None = None) -> Interval:
    """An interval from ``chr1:1,001-2,000``, ``chr1:5-`` or ``chr1`` (samtools style: 1-based, inclusive).

    Args:
        text: the region. ``{name}`` or ``{name}:1-5`` marks a name that itself looks like a region.
        contigs: known names with their lengths. Without them only complete ranges can be told.

    Raises:
        RegionError: an unknown contig, a range that is not one, or an open range without ``contigs``.
    """

    def refuse(problem: str, remedy: str = "write contig:start-end, 1-based and inclusive") -> RegionError:
        return RegionError(problem, remedy, field="region", value=text)

    name, span = _split_region(text, contigs, refuse)
    if contigs is not None and name not in contigs:
        known = ", ".join(list(contigs)[:5]) + (", …" if len(contigs) > 5 else "")
        raise refuse(f"contig {name!r} is unknown", f"the known ones are {known or 'none'}")
    first, last = "1", None
    if span is not None:
        found = _RANGE.fullmatch(span)
        if found is None:
            raise refuse(f"{span!r} is not a range of whole numbers")
        first, last = found.groups()
        if "-" not in span:
            raise refuse("a position alone is ambiguous", f"write {name}:{span}-{span} for one base, or {name}:{span}-")
    start = int(first.replace(",", "")) - 1
    if last is None:
        if contigs is None:
            raise refuse("the region has no end, and the contig's length is not known here", "give its end")
        end = contigs[name]
    else:
        end = int(last.replace(",", ""))
    if start < 0:
        raise refuse("positions start at 1")
    if end < start + (last is not None):
        raise refuse(f"the end {end} lies before the start {start + 1}")
    return Interval(name, start, end)


def _split_region(
    text: str, contigs: Mapping[str, int] | None, refuse: Callable[[str, str], RegionError]
) -> tuple[str, str | None]:
    """Name and range; names may hold colons, so known names decide where there are any."""
    if text.startswith("{") and "}" in text:
        name, _, rest = text[1:].partition("}")
        if rest and not rest.startswith(":"):
            raise refuse("something other than :start-end follows the name in braces", "write {name}:start-end")
        return name, rest[1:] if rest else None
    name, colon, span = text.rpartition(":")
    if not colon:
        return text, None
    if contigs is None or text not in contigs:
        return name, span
    if name in contigs and _RANGE.fullmatch(span):
        raise refuse("it names a contig, and also a range of another", f"write {{{text}}} or {{{name}}}:{span}")
    return text, None
