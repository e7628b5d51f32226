"""Saturation mutagenesis against scoring every mutated sequence whole."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from genomamba.data.datasets import WindowReader
from genomamba.data.reference import Reference
from genomamba.genome import alphabet
from genomamba.genome.interval import Interval
from genomamba.model.backbone import CausalLM, MaskedLM
from genomamba.model.config import ModelConfig
from genomamba.model.sequence_heads import SequenceModel
from genomamba.scoring.causal_mutagenesis import CausalMutagenesis
from genomamba.scoring.mutagenesis import SiteMutagenesis, sequence_mutagenesis
from genomamba.scoring.sequences import SequenceScorer

SEQUENCE = "".join(np.random.default_rng(0).choice(list("ACGTACGTacgtN"), 70))
CPU = torch.device("cpu")


@pytest.fixture
def reader(tmp_path: Path) -> WindowReader:
    (tmp_path / "g.fa").write_text(f">c\n{SEQUENCE}\n")
    return WindowReader(Reference.open(tmp_path / "g.fa"), softmask_weight=1.0)


def lively(model: Any) -> Any:
    torch.manual_seed(3)
    with torch.no_grad():
        model.backbone.embedding.weight.mul_(30)
    return model.eval()


def mutated(ids: np.ndarray, first: int, last: int) -> Iterator[tuple[int, int, np.ndarray]]:
    for place in range(first, last):
        for base in alphabet.BASES:
            if ids[place] in alphabet.BASES and base != ids[place]:
                other = ids.copy()
                other[place] = base
                yield place, base, other


@torch.no_grad()
def naive(model: CausalLM, ids: np.ndarray, first: int, last: int, horizon: int | None) -> np.ndarray:
    """Both whole sequences, one substitution at a time."""

    def log_p(sequence: np.ndarray) -> np.ndarray:
        return model.log_likelihood(torch.from_numpy(sequence)[None])[0].double().numpy()

    scores = np.full((last - first, 4), np.nan)
    for place, base, other in mutated(ids, first, last):
        gain = log_p(other) - log_p(ids)  # entry t - 1 belongs to token t
        end = len(ids) if horizon is None else place + horizon
        scores[place - first, base - alphabet.A] = gain[: end - 1].sum()
    return scores


CASES = (  # layers, horizon, strands, rows, tokens
    ("mamba", None, "+", 10, 200),
    ("mamba", None, "-", 4, 31),
    ("mamba", 12, "+-", 1000, 100_000),
    ("mamba", 1, "+", 3, 50),
    ("mamba2 gru", None, "+-", 10, 100),
    ("s4d attention", 12, "+", 10, 100),
)


@pytest.mark.parametrize(("layers", "horizon", "strands", "rows", "tokens"), CASES)
def test_shared_states_give_what_whole_sequences_give(
    reader: WindowReader, layers: str, horizon: int | None, strands: str, rows: int, tokens: int
) -> None:
    model = lively(CausalLM(ModelConfig(d_model=16, n_layer=len(layers.split()), d_state=4, layers=layers, headdim=8)))
    ids = reader(Interval("c", 4, 54)).ids
    expected = {}
    if "+" in strands:
        expected["+"] = naive(model, ids, 16, 28, horizon)
    if "-" in strands:
        expected["-"] = naive(model, alphabet.reverse_complement(ids), 50 - 28, 50 - 16, horizon)[::-1, ::-1]
    scorer = CausalMutagenesis(model, strands=strands, horizon=horizon, rows=rows, tokens=tokens, device=CPU)
    mean = sum(expected.values()) / len(expected)
    assert np.nanstd(mean) > 0.05
    np.testing.assert_allclose(scorer(ids, 16, 28), mean, rtol=1e-4, atol=2e-5)


def test_a_contigs_first_base_counts_by_what_follows_it(reader: WindowReader) -> None:
    model = lively(CausalLM(ModelConfig(d_model=16, n_layer=1, d_state=4)))
    ids = reader(Interval("c", 0, 14)).ids
    done: list[int] = []
    found = CausalMutagenesis(model, horizon=None, rows=6, tokens=50, strands="+", device=CPU)(ids, 0, 14, done.append)
    np.testing.assert_allclose(found, naive(model, ids, 0, 14, None), rtol=1e-4, atol=2e-5)
    assert sum(done) == 14
    letters = SEQUENCE[:14].upper()
    for row, letter in zip(found, letters, strict=True):
        assert [base for base, score in zip("ACGT", row, strict=True) if np.isnan(score)] == (
            [letter] if letter in "ACGT" else list("ACGT")
        )


@pytest.mark.parametrize("equivariant", [False, True])
@torch.no_grad()
def test_a_masked_model_is_asked_for_the_hidden_base(reader: WindowReader, equivariant: bool) -> None:
    config = ModelConfig(d_model=16, n_layer=2, d_state=4, bidirectional=True, rc_equivariant=equivariant)
    model = lively(MaskedLM(config))
    found = {
        rows: SiteMutagenesis(model, reader, window=20, rows=rows, device=CPU)(Interval("c", 2, 68)) for rows in (9, 99)
    }
    np.testing.assert_allclose(found[9], found[99], rtol=1e-4, atol=1e-5)
    for site in (2, 30, 67):
        low, high = max(0, site - 10), min(70, site + 10)
        per_strand = []
        for strand in "+-":
            ids = torch.from_numpy(reader(Interval("c", low, high, strand)).ids).long()
            place = site - low if strand == "+" else high - 1 - site
            reference, ids[place] = int(ids[place]), alphabet.MASK
            log_p = model(ids[None])[0, place, alphabet.A : alphabet.T + 1].double().log_softmax(0)
            gain = (log_p - log_p[reference - alphabet.A]).numpy()
            per_strand.append(gain if strand == "+" else gain[::-1])
        expected = np.mean(per_strand, axis=0)
        own = np.isnan(found[99][site - 2])
        assert own.sum() == 1
        assert expected[own] == pytest.approx(0)
        np.testing.assert_allclose(found[99][site - 2][~own], expected[~own], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("sharpness", [1.0, 1e5])
@torch.no_grad()
def test_a_class_has_a_score_however_sure_the_model_is(sharpness: float) -> None:
    model = lively(SequenceModel(ModelConfig(d_model=16, n_layer=1, d_state=4), classes=["no", "yes"]))
    model.head[-1].weight.mul_(sharpness)
    ids = alphabet.encode(SEQUENCE[:12].upper())
    scorer = SequenceScorer(model, batch_size=8, device=CPU)
    assert (0.0 in scorer.answers([ids])) == (sharpness > 1)
    found = sequence_mutagenesis(scorer, ids, 1, 8)
    logits = model(torch.from_numpy(ids)[None])[0].double()
    seen = 0
    for place, base, other in mutated(ids, 0, ids.size):
        change = model(torch.from_numpy(other)[None])[0].double() - logits
        assert found[place, base - alphabet.A] == pytest.approx(float(change[1] - change[0]), rel=1e-3, abs=1e-4)
        seen += 1
    assert np.isfinite(found).sum() == seen > 0
