"""Every base is hidden once, and its bits are those of the pass in which it was."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from genomamba.data.datasets import WindowReader
from genomamba.data.reference import Reference
from genomamba.genome import alphabet
from genomamba.genome.interval import Interval
from genomamba.model.backbone import MaskedLM
from genomamba.model.config import ModelConfig
from genomamba.scoring.masked_bits import MaskedBits

SEQUENCE = "".join(np.random.default_rng(0).choice(list("ACGTacgtN"), 90))


@pytest.fixture
def reader(tmp_path: Path) -> WindowReader:
    (tmp_path / "g.fa").write_text(f">c\n{SEQUENCE}\n")
    return WindowReader(Reference.open(tmp_path / "g.fa"), softmask_weight=1.0)


def model(**kind: bool) -> MaskedLM:
    torch.manual_seed(3)
    made = MaskedLM(ModelConfig(d_model=8, n_layer=2, d_state=4, bidirectional=True, **kind)).eval()
    with torch.no_grad():
        made.backbone.embedding.weight.mul_(20)
    return made


def bits_of(scorer: MaskedBits, region: Interval) -> np.ndarray:
    return np.concatenate([piece.bits for piece in scorer(region)])


@pytest.mark.parametrize("strand", ["+", "-"])
@pytest.mark.parametrize("hide_every", [2, 5])
def test_one_window_by_hand(reader: WindowReader, strand: str, hide_every: int) -> None:
    network, region = model(), Interval("c", 7, 70, strand)
    ids = torch.from_numpy(reader(region).ids).long()
    expected = np.full(63, np.nan)
    for at in range(63):
        if ids[at] == alphabet.N:
            continue
        seen = ids.clone()
        seen[[p for p in range(at % hide_every, 63, hide_every) if ids[p] != alphabet.N]] = alphabet.MASK
        with torch.no_grad():
            bases = network(seen[None])[0, at, alphabet.A : alphabet.T + 1].double().log_softmax(0)
        expected[at] = -bases[ids[at] - alphabet.A] / np.log(2)
    for batch_size in (1, 3, 16):
        scorer = MaskedBits(
            *(network, reader),
            window=100, overlap=20, hide_every=hide_every, batch_size=batch_size, device=torch.device("cpu"),
        )  # fmt: skip
        np.testing.assert_allclose(bits_of(scorer, region), expected, rtol=1e-4, atol=1e-5)
    assert np.nanstd(expected) > 0.1


@pytest.mark.parametrize("strand", ["+", "-"])
def test_windows_cover_each_base_once_in_reading_order(reader: WindowReader, strand: str) -> None:
    region = Interval("c", 3, 88, strand)
    scorer = MaskedBits(
        *(model(), reader), window=20, overlap=7, hide_every=4, batch_size=16, device=torch.device("cpu")
    )
    pieces = list(scorer(region))
    covered = [
        at for piece in pieces for at in range(piece.interval.start, piece.interval.end)[:: -1 if strand == "-" else 1]
    ]
    assert covered == list(range(3, 88))[:: -1 if strand == "-" else 1]
    letters = "".join(alphabet.decode(reader(piece.interval).ids) for piece in pieces)
    assert [np.isnan(value) for piece in pieces for value in piece.bits] == [letter == "N" for letter in letters]


def test_a_model_of_both_strands_gives_one_track(reader: WindowReader) -> None:
    network = model(rc_equivariant=True)
    scorer = MaskedBits(
        *(network, reader), window=100, overlap=0, hide_every=85, batch_size=85, device=torch.device("cpu")
    )  # one base at a time: which others are hidden does not depend on the strand
    plus, minus = (bits_of(scorer, Interval("c", 3, 88, strand)) for strand in "+-")
    np.testing.assert_allclose(plus, minus[::-1], rtol=1e-4, atol=1e-5)
