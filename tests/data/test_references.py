"""Several genomes read as one."""

from __future__ import annotations

from pathlib import Path

import pytest

from genomamba.data.reference import Reference
from genomamba.data.references import References
from genomamba.errors import SequenceFileError
from genomamba.genome.interval import Interval


def opened(path: Path, **contigs: str) -> Reference:
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(f">{name}\n{sequence}\n" for name, sequence in contigs.items()))
    return Reference.open(path)


def test_names_that_do_not_clash_are_kept(tmp_path: Path) -> None:
    both = References([opened(tmp_path / "a.fa", one="ACGTT", two="GG"), opened(tmp_path / "b.fa", three="ttN")])
    assert both.contigs == {"one": 5, "two": 2, "three": 3}
    assert both.groups == [["one", "two"], ["three"]]
    assert both.fetch(Interval("one", 0, 3, "-")).tobytes() == b"CGT"
    assert both.fetch(Interval("three", 0, 3)).tobytes() == b"ttN"
    assert both.softmask(Interval("three", 0, 3)).tolist() == [True, True, False]
    assert both.ids(Interval("three", 1, 3)).tolist() == [10, 11]


def test_names_that_clash_carry_their_file(tmp_path: Path) -> None:
    first, second = opened(tmp_path / "a.fa", chr1="ACGT"), opened(tmp_path / "b.x.fa", chr1="TTT", chr2="G")
    both = References([first, second])
    assert both.contigs == {"a/chr1": 4, "b/chr1": 3, "b/chr2": 1}
    assert both.fetch(Interval("b/chr1", 0, 3)).tobytes() == b"TTT"
    assert both.fingerprint not in (first.fingerprint, second.fingerprint, References([second, first]).fingerprint)
    assert References([first]).fingerprint == first.fingerprint
    third = opened(tmp_path / "more" / "a.fa", chr1="CC")
    with pytest.raises(SequenceFileError, match="another reference is called a too and also has contig chr1"):
        References([first, third])
