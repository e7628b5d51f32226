"""Tracks along a genome, one value per base, as files: bigWig, bedGraph, and a table of positions."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pysam
from numpy.typing import NDArray

from genomamba.data.references import Genome
from genomamba.errors import ConfigError, OutputError
from genomamba.files import whole_file
from genomamba.genome.interval import Interval

TrackFormat = Literal["bigwig", "bedgraph", "tsv"]
_SUFFIXES: dict[str, TrackFormat] = {
    **dict.fromkeys((".bw", ".bigwig"), "bigwig"),
    **dict.fromkeys((".bedgraph", ".bg", ".bedgraph.gz", ".bg.gz"), "bedgraph"),
    **dict.fromkeys((".tsv", ".tsv.gz"), "tsv"),
}

_NO_BIGWIG = "name an output that ends in .bedgraph.gz"


class TrackPiece(NamedTuple):
    """Values of neighbouring bases."""

    contig: str
    start: int  # of the first, 0-based
    values: NDArray[np.float32]  # (L,); NaN where there is none


def track_format(path: str | os.PathLike[str]) -> TrackFormat:
    """The format that a path's extension asks for; ``-`` is bedGraph.

    Raises:
        OutputError: an extension that names none.
    """
    name = os.path.basename(path).lower()
    if name == "-":
        return "bedgraph"
    for suffix, found in _SUFFIXES.items():
        if name.endswith(suffix):
            return found
    raise OutputError("the extension names no format of tracks", f"use one of {', '.join(_SUFFIXES)}", file=path)


def check_track_format(path: str | os.PathLike[str]) -> TrackFormat:
    """The same, of a file that is to be written.

    Raises:
        ConfigError: the library that writes it is not installed.
        OutputError: as of `track_format`.
    """
    form = track_format(path)
    if form == "bigwig":
        bigwig_library(_NO_BIGWIG, field="output")
    return form


def track_paths(output: str, tracks: Sequence[str]) -> list[str]:
    """One path per track: the output itself for one, otherwise with ``.NAME`` before its extensions."""
    if len(tracks) == 1:
        return [output]
    folder, slash, name = output.rpartition("/")
    stem, dot, suffixes = name.partition(".")
    return [f"{folder}{slash}{stem}.{track}{dot}{suffixes}" for track in tracks]


def bedgraph_lines(pieces: Iterable[TrackPiece]) -> Iterator[str]:
    """Text of contig, start, end, value, a line per base that has one (UCSC's definition: 0-based, half-open)."""
    for contig, start, values in pieces:
        yield "".join(
            f"{contig}\t{start + at}\t{start + at + 1}\t{values[at]:.6g}\n" for at in np.flatnonzero(~np.isnan(values))
        )


def table_lines(pieces: Iterable[TrackPiece], genome: Genome, name: str) -> Iterator[str]:
    """A header, and text of contig, pos (from 1), base as the genome has it, and value, NA where there is none."""
    yield f"contig\tpos\tbase\t{name}\n"
    for contig, start, values in pieces:
        bases = genome.fetch(Interval(contig, start, start + values.size)).tobytes().decode("ascii")
        yield "".join(
            f"{contig}\t{pos}\t{base}\t{'NA' if np.isnan(value) else format(value, '.6g')}\n"
            for pos, (base, value) in enumerate(zip(bases, values, strict=True), start + 1)
        )


def write_text(path: str, texts: Iterable[str], *, folder: Path | None = None) -> None:
    """Text to a file, whole or not at all, by bgzip where its name ends in ``.gz``; to stdout where it is ``-``.

    Args:
        path: the file.
        texts: what it holds.
        folder: see `whole_file`.

    Raises:
        OutputError: it cannot be written.
    """
    if path == "-":
        for text in texts:
            sys.stdout.write(text)
        sys.stdout.flush()
        return
    with whole_file(path, folder=folder) as temporary:
        if path.lower().endswith(".gz"):
            with pysam.BGZFile(str(temporary), "wb", None) as out:
                for text in texts:
                    out.write(text.encode())
        else:
            with temporary.open("w", encoding="utf-8") as plain:
                plain.writelines(texts)


def write_track(
    path: str, contigs: Mapping[str, int], pieces: Iterable[TrackPiece], *, folder: Path | None = None
) -> None:
    """A bigWig or a bedGraph, by the path's extension; arguments and errors as of `write_bigwig`."""
    if track_format(path) == "bigwig":
        write_bigwig(path, contigs, pieces, folder=folder)
    else:
        write_text(path, bedgraph_lines(pieces), folder=folder)


def write_bigwig(
    path: str | os.PathLike[str],
    contigs: Mapping[str, int],
    pieces: Iterable[TrackPiece],
    *,
    folder: Path | None = None,
) -> None:
    """Writes a bigWig, whole or not at all, in memory that does not grow with it.

    (libBigWig, the library of pyBigWig, keeps 14 bytes per base while it writes.)

    Args:
        path: the file.
        contigs: names and lengths.
        pieces: each contig's together, by coordinate, without overlap.
        folder: see `whole_file`.

    Raises:
        ConfigError: the library is not installed.
        OutputError: there is no value to write, or the file cannot be written.
    """
    library = bigwig_library(_NO_BIGWIG, field="output")
    feed = _Feed(pieces)
    values = iter(feed)
    first = next(values, None)
    if feed.error is not None:
        raise feed.error
    if first is None:
        raise no_value(path)
    with whole_file(path, folder=folder) as temporary:
        named = temporary.with_name(f"{temporary.name}.bw")  # the library goes by the name's end
        try:
            library.open(str(named), "w").write(dict(contigs), chain([first], values))
            if feed.error is not None:
                raise feed.error
            written = library.open(str(named)).info()["summary"]["basesCovered"]
            if written != feed.values:
                raise OSError(errno.EIO, f"{written:,} of {feed.values:,} values were written", str(named))
            named.replace(temporary)
        except BaseException as error:
            # The library panics where it cannot write, which is no Exception, or leaves a file that it cannot read.
            if type(error).__name__ == "PanicException" or isinstance(error, library.BBIReadError):
                raise OSError(errno.EIO, "the bigWig library failed, as on a full disk", str(named)) from error
            raise
        finally:
            named.unlink(missing_ok=True)


def no_value(path: str | os.PathLike[str]) -> OutputError:
    """What the user is told of a bigWig that would be empty, which its readers refuse."""
    return OutputError("there is no value to write", "give regions that hold A, C, G or T", file=path)


class _Feed:
    """Pieces as the library takes them. It swallows what is raised while it reads, so that is kept for later."""

    def __init__(self, pieces: Iterable[TrackPiece]) -> None:
        self.pieces, self.values = pieces, 0
        self.error: BaseException | None = None

    def __iter__(self) -> Iterator[tuple[str, int, int, float]]:
        try:
            for contig, start, values in self.pieces:
                at = np.flatnonzero(~np.isnan(values))
                self.values += at.size
                for position, value in zip((start + at).tolist(), values[at].tolist(), strict=True):
                    yield contig, position, position + 1, value
        except GeneratorExit:
            raise
        except BaseException as error:
            self.error = error


def bigwig_library(otherwise: str, field: str) -> Any:
    """The module pybigtools.

    Raises:
        ConfigError: it is not installed; ``otherwise`` is what one could do without it.
    """
    try:
        import pybigtools
    except ImportError as error:
        raise ConfigError(
            "bigWigs are read and written by pybigtools, which is not installed",
            f"run `pip install pybigtools`, or {otherwise}",
            field=field,
        ) from error
    return pybigtools
