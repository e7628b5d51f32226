"""Writing annotated variant files: each record as it was read, with INFO keys added."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Container, Iterable, Mapping
from contextlib import ExitStack, nullcontext
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Literal, cast

import pysam
import pysam.bcftools

from genomamba.data.vcf import STDIN as STDOUT
from genomamba.data.vcf import VcfRecord, contig_lengths, quiet_htslib
from genomamba.errors import OutputError
from genomamba.files import refuse_existing, whole_file

Format = Literal["vcf", "vcf.gz", "bcf"]

_KEY = re.compile(r"##(INFO|FORMAT|FILTER)=<ID=([^,>]+)")
_STRUCTURED = re.compile(r"##(\w+)=<ID=([^,>]+)")


def output_format(path: str | os.PathLike[str]) -> Format:
    """The format that a path's extension asks for; ``-`` is plain VCF.

    Raises:
        OutputError: an extension that is none of .vcf, .vcf.gz, .vcf.bgz and .bcf.
    """
    name = str(path).lower()
    if name == STDOUT or name.endswith(".vcf"):
        return "vcf"
    if name.endswith((".vcf.gz", ".vcf.bgz")):
        return "vcf.gz"
    if name.endswith(".bcf"):
        return "bcf"
    raise OutputError("the extension names no variant format", "use .vcf, .vcf.gz or .bcf", file=path)


def annotated_header(header: list[str], extra: Iterable[str], contigs: Mapping[str, int | None]) -> list[str]:
    """``header`` with ``extra`` lines and a ``##contig`` line for each of ``contigs`` that it lacks, before #CHROM.

    An extra line replaces those of the same INFO (FORMAT, …) ID, or of the same key where it has no ID, so that
    annotating twice leaves one description of each.

    Args:
        header: lines without their ends, ``#CHROM`` last.
        extra: ``##`` lines to add.
        contigs: contig to its length in bases, None where it is not known.
    """
    extra = list(extra)
    replaced = {_identity(line) for line in extra}
    known = contig_lengths(header)
    kept = [line for line in header[:-1] if _identity(line) not in replaced]
    if not header[0].startswith("##fileformat="):
        kept.insert(0, "##fileformat=VCFv4.2")
    added = [
        f"##contig=<ID={contig}>" if length is None else f"##contig=<ID={contig},length={length}>"
        for contig, length in contigs.items()
        if contig not in known
    ]
    return [*kept, *added, *extra, header[-1]]


def with_info(text: str, info: Mapping[str, str]) -> str:
    """A record's line with ``info`` at the end of its INFO column; values that stood under these keys are dropped.

    Args:
        text: the whole line.
        info: key to value, both written as they are; an empty value makes a flag.
    """
    fields = text.split("\t", 8)
    kept = [] if fields[7] in (".", "") else fields[7].split(";")
    if any(key in fields[7] for key in info):
        kept = [entry for entry in kept if entry.partition("=")[0] not in info]
    kept += [f"{key}={value}" if value else key for key, value in info.items()]
    fields[7] = ";".join(kept) or "."
    return "\t".join(fields)


class VcfWriter:
    """A VCF or BCF file that appears whole, with its index, or not at all; to be used as a context manager.

    ``.vcf.gz`` is bgzip, with an index beside it (``.tbi``, or ``.csi`` where a position is too high for that)
    when the records are sorted; unsorted ones are written without an index, and ``note`` then says so.

    Args:
        path: where to; its extension chooses the format, ``-`` is plain VCF on stdout.
        header: header lines of the input, ``#CHROM`` last.
        extra_header_lines: ``##`` lines to add, see ``annotated_header``.
        contigs: contigs of the records with their lengths; what the header lacks of them is added.
        force: whether to replace what stands at ``path``.
        folder: where the file grows until it is whole, on the same file system; beside ``path`` when not given.

    Attributes:
        note: what the user should hear about the file once it is closed, None where there is nothing.

    Raises:
        OutputError: the extension is unknown, the file exists and ``force`` is not set, or it cannot be written.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        header: list[str],
        extra_header_lines: Iterable[str] = (),
        *,
        contigs: Mapping[str, int | None] | None = None,
        force: bool = False,
        folder: Path | None = None,
    ) -> None:
        self.path, self._folder = path, folder
        self.note: str | None = None
        self._format = output_format(path)
        self._to_stdout = str(path) == STDOUT
        self._header = annotated_header(header, extra_header_lines, contigs or {})
        self._stack = ExitStack()
        self._order = _Order()
        if not self._to_stdout:
            refuse_existing(path, force=force)

    def __enter__(self) -> VcfWriter:
        if self._to_stdout:
            self._out: BinaryIO = sys.stdout.buffer
        else:
            self._temporary = self._stack.enter_context(whole_file(self.path, folder=self._folder))
            if self._format == "vcf":
                self._out = self._temporary.open("wb")
            else:  # BCF too: it is made from the text when that is whole
                self._out = cast(BinaryIO, pysam.BGZFile(str(self._temporary), "wb", None))
        self._put("\n".join(self._header))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._to_stdout:
            self._out.flush()
            return
        try:
            with quiet_htslib():
                self._out.close()
            if kind is None:
                self._publish()
        except BaseException as failure:
            self._stack.__exit__(type(failure), failure, failure.__traceback__)
            raise
        self._stack.__exit__(kind, error, traceback)

    def write(self, record: VcfRecord, info: Mapping[str, str]) -> None:
        """Appends one record with ``info`` added to its INFO column."""
        self._order.see(record)
        self._put(with_info(record.text, info))

    def _put(self, text: str) -> None:
        self._out.write(text.encode("utf-8", errors="surrogateescape") + b"\n")

    def _publish(self) -> None:
        """Puts the finished file in its place, and then its index."""
        if self._format == "bcf":
            _text_to_bcf(self._temporary, self.path)
        kind = self._order.index_kind() if self._format == "vcf.gz" else None
        if self._format == "vcf.gz" and kind is None:
            self.note = f"{self.path} has no index: {self._order.obstacle}"
        with whole_file(f"{self.path}.{kind}", folder=self._folder) if kind else nullcontext() as index:
            if index:
                with quiet_htslib():
                    pysam.tabix_index(
                        str(self._temporary),
                        preset="vcf",
                        index=str(index),
                        csi=kind == "csi",
                        force=True,
                        keep_original=True,
                    )
            for stale in ("tbi", "csi"):  # an index of the file that is replaced would point anywhere
                Path(f"{self.path}.{stale}").unlink(missing_ok=True)
            self._stack.close()


class _Order:
    """Whether an index can be made of the records seen, and which."""

    def __init__(self) -> None:
        self.obstacle: str | None = None
        self._seen: set[str] = set()
        self._contig = ""
        self._pos = self._highest = 0

    def see(self, record: VcfRecord) -> None:
        if record.contig != self._contig:
            if record.contig in self._seen:
                self.obstacle = self.obstacle or f"line {record.line} goes back to contig {record.contig}"
            self._seen.add(record.contig)
            self._contig, self._pos = record.contig, 0
        if record.pos < self._pos:
            self.obstacle = self.obstacle or f"the records are not sorted by position (line {record.line})"
        self._pos = record.pos
        self._highest = max(self._highest, record.pos + len(record.ref))
        if self._highest >= 1 << 31:
            self.obstacle = self.obstacle or f"POS in line {record.line} is too high for one"

    def index_kind(self) -> Literal["tbi", "csi"] | None:
        if self.obstacle:
            return None
        return "tbi" if self._highest < 1 << 29 else "csi"


def _identity(line: str) -> tuple[str, str] | str:
    match = _STRUCTURED.match(line)
    return (match[1], match[2]) if match else line.partition("=")[0]


def check_declared(
    header: Iterable[str], records: Iterable[VcfRecord], target: str | os.PathLike[str], added: Container[str]
) -> None:
    """Whether records can become BCF, which needs each INFO, FORMAT and FILTER key declared.

    Args:
        header: of the records.
        records: all of them.
        target: the BCF file that is wanted, for the message.
        added: INFO keys that it declares by itself.

    Raises:
        OutputError: the header lacks one.
    """
    declared = {match.groups() for line in header if (match := _KEY.match(line))}
    missing: dict[tuple[str, str], None] = {}  # in the order of the records
    for record in records:
        columns = record.text.split("\t")
        used = [("FILTER", key) for key in columns[6].split(";") if key != "PASS"]
        used += [("INFO", key) for pair in columns[7].split(";") if (key := pair.partition("=")[0]) not in added]
        used += [("FORMAT", key) for key in "".join(columns[8:9]).split(":")]
        missing |= dict.fromkeys(each for each in used if each[1] not in ("", ".") and each not in declared)
    if missing:
        raise _undeclared([f"##{kind}=<ID={key}>" for kind, key in missing], target)


def _undeclared(lines: list[str], target: str | os.PathLike[str]) -> OutputError:
    more = f" and {len(lines) - 1} more" if len(lines) > 1 else ""
    return OutputError(
        f"BCF needs every key declared, and the header lacks {lines[0]}{more}",
        "write .vcf.gz, or declare it in the input's header",
        file=target,
    )


def _text_to_bcf(temporary: Path, target: str | os.PathLike[str]) -> None:
    """Replaces VCF text by BCF, which needs each contig and each INFO, FORMAT and FILTER key declared."""
    packed = temporary.with_name(f"{temporary.name}.bcf")
    try:
        with quiet_htslib():
            with pysam.VariantFile(str(temporary)) as source:
                before = set(str(source.header).splitlines())
                for _ in source:  # htslib adds a line to the header for each key that it did not know
                    pass
                missing = [line for line in str(source.header).splitlines() if line not in before]
            if missing:  # checked before writing: htslib would end the process
                raise _undeclared([f"{line.partition(',')[0]}>" for line in missing], target)
            pysam.bcftools.view("--no-version", "-Ob", "-o", str(packed), str(temporary), catch_stdout=False)
        os.replace(packed, temporary)
    except (pysam.SamtoolsError, ValueError) as error:
        reason = str(error).rpartition("stderr=")[2].strip().splitlines()[-1]
        raise OutputError(
            f"BCF could not be made of the records ({reason})", "check the free space, or write .vcf.gz", file=target
        ) from error
    finally:
        packed.unlink(missing_ok=True)
