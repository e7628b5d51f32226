"""Scores against their definitions, and with states reused against every sequence read from its start."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from variant_cases import CPU, SIZE, causal, classifier, masked, some_variants, write_genome

from genomamba.data.pairs import allele_pair, place_window, read_window, stack_pairs, widest_step
from genomamba.data.reference import Reference
from genomamba.genome import alphabet
from genomamba.genome.variant import Variant
from genomamba.model.folder import initialise_backbone
from genomamba.model.heads import SequencePair, VariantClassifier, pair_llr
from genomamba.scoring.batching import batches
from genomamba.scoring.causal_alleles import lay_out
from genomamba.scoring.variants import VariantScore, VariantScorer

WINDOW = 96
MODELS: dict[str, Any] = {
    "causal": causal,
    "hybrid": lambda: causal("mamba mamba2 s4d gru attention"),
    "within a window": lambda: causal("attention mamba", window=9),
    "classifier": classifier,
    "masked": lambda: masked(equivariant=False),
    "equivariant": lambda: masked(equivariant=True),
    "masked classifier": lambda: classifier(bidirectional=True),
    "equivariant classifier": lambda: classifier(bidirectional=True, equivariant=True),
}


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Reference:
    return write_genome(tmp_path_factory.mktemp("genome"))


@pytest.fixture(scope="module")
def variants(reference: Reference) -> list[Variant]:
    return some_variants(reference)


def scores(model: Any, reference: Reference, variants: list[Variant], **options: Any) -> list[VariantScore]:
    options = {"window": WINDOW, "batch_size": 7, "device": CPU, "with_distances": True} | options
    return list(VariantScorer(model, reference, **options)(variants))


def table(found: list[VariantScore]) -> np.ndarray:
    """(V, columns); NaN for what the model does not give."""
    rows = [[s.llr, s.probability, s.logit, *(s.distances or ())] for s in found]
    return np.array(rows, dtype=float)


def assert_same(first: list[VariantScore], second: list[VariantScore], within: float = 1e-5) -> None:
    np.testing.assert_allclose(table(first), table(second), rtol=within, atol=within)


@pytest.mark.parametrize("name", ["causal", "hybrid", "within a window", "classifier"])
@pytest.mark.parametrize("step", [1, 16])
def test_reused_states_change_no_score(name: str, step: int, reference: Reference, variants: list[Variant]) -> None:
    model = MODELS[name]()
    plain = scores(model, reference, variants, step=step, reuse_state=False)
    assert_same(plain, scores(model, reference, variants, step=step))
    assert np.abs(table(plain)[:, 0]).min() > 1e-3  # there is something to agree on
    assert len(np.unique(table(plain)[:, 0])) == len(variants)


@pytest.mark.parametrize("name", MODELS)
def test_batches_and_order_change_no_score(name: str, reference: Reference, variants: list[Variant]) -> None:
    model = MODELS[name]()
    one = scores(model, reference, variants, batch_size=1)
    order = np.random.default_rng(0).permutation(len(variants))
    shuffled = scores(model, reference, [variants[place] for place in order], batch_size=64)
    assert_same([one[place] for place in order], shuffled)
    assert_same(one, scores(model, reference, variants, batch_size=None))


@pytest.mark.parametrize("name", MODELS)
def test_the_reverse_complement_of_a_genome_gives_the_same_scores(
    name: str, reference: Reference, variants: list[Variant], tmp_path: Path
) -> None:
    # A window of odd length has a middle; with it both strands' windows are the same bases.
    other = write_genome(tmp_path, reverse=True)
    turned = [
        Variant("chr", SIZE - v.end, v.ref[::-1].translate(PAIRS), v.alt[::-1].translate(PAIRS))
        for v in variants
        if len(v.ref) == len(v.alt)
    ]
    given = [v for v in variants if len(v.ref) == len(v.alt) and len(v.trimmed().ref) % 2]
    turned = [v for v in turned if len(v.trimmed().ref) % 2]
    model = MODELS[name]()
    assert_same(scores(model, reference, given, window=97), scores(model, other, turned, window=97))


PAIRS = str.maketrans("ACGT", "TGCA")


@pytest.mark.parametrize("name", MODELS)
def test_spellings_of_one_indel_agree(name: str, reference: Reference) -> None:
    sequence = reference.sequence("chr", 0, SIZE)
    assert sequence[900:940] == "AC" * 20
    left = Variant("chr", 899, sequence[899:902], sequence[899])
    right = Variant("chr", 937, sequence[937:940], sequence[937])
    padded = Variant("chr", 890, sequence[890:930], sequence[890:900] + sequence[902:930])
    found = scores(MODELS[name](), reference, [left, right, padded], batch_size=2)
    assert_same(found[:1] * 2, found[1:])


@pytest.mark.parametrize("name", MODELS)
def test_an_ambiguity_code_in_the_context_scores_as_n(
    name: str, reference: Reference, variants: list[Variant], tmp_path: Path
) -> None:
    sequence = list(reference.sequence("chr", 0, SIZE))
    genomes = []
    for letter in "RN":
        for place in (498, 503, 1198, 1203):
            sequence[place] = letter
        path = tmp_path / f"{letter}.fa"
        path.write_text(f">chr\n{''.join(sequence)}\n")
        genomes.append(Reference.open(path))
    own = [v for v in variants if 500 <= v.start <= 1201 and v.kind == "SNV"]
    model = MODELS[name]()
    first, second = (scores(model, genome, own) for genome in genomes)
    assert table(first).tobytes() == table(second).tobytes()
    assert np.abs(table(first)[:, 0] - table(scores(model, reference, own))[:, 0]).max() > 1e-3


def indels(variants: list[Variant]) -> list[Variant]:
    return [variant for variant in variants if len(variant.ref) != len(variant.alt)]


def contig_of(reference: Reference) -> str:
    return reference.sequence("chr", 0, SIZE)


def test_both_alleles_of_an_indel_begin_and_end_at_the_same_bases(
    reference: Reference, variants: list[Variant]
) -> None:
    """The alternative's rows are cut from a genome that has the change, as it is spelt, at the reference's ends."""
    whole = contig_of(reference)
    assert {variant.kind for variant in indels(variants)} == {"INS", "DEL", "INDEL"}
    for variant in indels(variants):
        changed = whole[: variant.start] + variant.alt + whole[variant.end :]
        span = read_window(reference, variant, WINDOW).span
        ref = whole[span.start : span.end]
        alt = changed[span.start : span.end + len(variant.alt) - len(variant.ref)]
        rows = [alphabet.decode(row) for row in allele_pair(reference, variant, WINDOW).rows]
        assert rows == [ref, alt, ref[::-1].translate(PAIRS), alt[::-1].translate(PAIRS)]


@pytest.mark.parametrize("name", ["causal", "hybrid", "classifier", "masked", "masked classifier"])
@pytest.mark.parametrize("reuse_state", [False, True])
def test_an_indels_score_reads_its_span_and_nothing_else(
    name: str, reuse_state: bool, reference: Reference, variants: list[Variant], tmp_path: Path
) -> None:
    """Were the shorter allele filled up to the longer one's length, its score would change with what lies outside."""
    model, whole = MODELS[name](), contig_of(reference)
    for number, variant in enumerate(indels(variants)):
        span = read_window(reference, variant, WINDOW).span
        inside = whole[span.start : span.end]
        turned = whole.translate(PAIRS)
        contigs = {
            "outside": turned[: span.start] + inside + turned[span.end :],
            "first": whole[: span.start] + turned[span.start] + whole[span.start + 1 :],
            "last": whole[: span.end - 1] + turned[span.end - 1] + whole[span.end :],
        }
        (wanted,) = table(scores(model, reference, [variant], reuse_state=reuse_state))
        for what, contig in contigs.items():
            if what != "outside" and variant.start <= {"first": span.start, "last": span.end - 1}[what] < variant.end:
                continue  # at the contig's edge: the change itself
            path = tmp_path / f"{number}_{what}.fa"
            path.write_text(f">chr\n{contig}\n")
            (got,) = table(scores(model, Reference.open(path), [variant], reuse_state=reuse_state))
            assert np.array_equal(got, wanted, equal_nan=True) == (what == "outside"), (variant, what)


@pytest.mark.parametrize("name", ["causal", "classifier"])
def test_causal_scores_are_those_of_the_whole_rows(name: str, reference: Reference, variants: list[Variant]) -> None:
    model = MODELS[name]()
    found = scores(model, reference, variants)
    for variant, score in zip(variants, found, strict=True):
        pair = SequencePair(*stack_pairs([allele_pair(reference, variant, WINDOW)], strands=2))
        with torch.inference_mode():
            logits = model.lm_head(model.backbone(pair.ids.flatten(0, 2))[0])
            assert score.llr == pytest.approx(float(pair_llr(logits, pair).mean()), abs=1e-5, rel=1e-5)
            if isinstance(model, VariantClassifier):
                logit, _ = model(pair)
                assert score.logit == pytest.approx(float(logit), abs=1e-5)
                assert score.probability == pytest.approx(float(model.probability(logit)), abs=1e-5)
            hidden = model.backbone(pair.ids.flatten(0, 2))[0].view(2, 2, -1, 16).double()
        check_distances(score, hidden, pair)


def check_distances(score: VariantScore, hidden: torch.Tensor, pair: SequencePair) -> None:
    """hidden is (strand, ref | alt, L, D)."""
    wanted = []
    for strand in range(len(hidden)):
        (start, ref_end), (_, alt_end) = pair.site[0, strand].tolist()
        anchor = int(ref_end != alt_end)
        lengths = pair.length[0, strand].tolist()
        ref, alt = hidden[strand, 0, : lengths[0]], hidden[strand, 1, : lengths[1]]
        first = max(0, start - anchor)
        means = [(ref[first : ref_end + anchor].mean(0), alt[first : alt_end + anchor].mean(0))]
        means.append((ref.mean(0), alt.mean(0)))
        row: list[float] = []
        for ref, alt in means:
            cosine = float(ref @ alt / ref.norm() / alt.norm())
            row += [float((alt - ref).abs().sum()), float((alt - ref).norm()), 1 - cosine]
        wanted.append(row)
    np.testing.assert_allclose(score.distances, np.mean(wanted, axis=0), rtol=1e-4, atol=1e-5)


def test_masked_scores_are_what_the_model_expects_at_the_site(reference: Reference, variants: list[Variant]) -> None:
    model = masked(equivariant=False)
    found = scores(model, reference, variants)
    for variant, score in zip(variants, found, strict=True):
        ratios = []
        pair = SequencePair(*stack_pairs([allele_pair(reference, variant, WINDOW)], strands=2))
        for strand in range(2):
            total = []
            (start, ref_end), (_, alt_end) = pair.site[0, strand].tolist()
            anchor = int(ref_end != alt_end)
            for allele, end in ((0, ref_end), (1, alt_end)):
                row = pair.ids[0, strand, allele, : pair.length[0, strand, allele]]
                site = slice(max(0, start - anchor), end + anchor)
                hidden = row.clone()
                hidden[site] = alphabet.MASK
                with torch.inference_mode():
                    logits = model(hidden[None])[0].double()[:, alphabet.A : alphabet.T + 1]
                bases = (row[site].long() - alphabet.A)[:, None]
                total.append(float(logits.log_softmax(-1)[site].gather(1, bases).sum()))
            ratios.append(total[1] - total[0])
        assert score.llr == pytest.approx(np.mean(ratios), abs=1e-5)


@pytest.mark.parametrize("equivariant", [False, True])
def test_a_masked_classifier_has_the_ratio_and_the_distances_of_its_language_model(
    equivariant: bool, reference: Reference, variants: list[Variant]
) -> None:
    model, pretrained = classifier(bidirectional=True, equivariant=equivariant), masked(equivariant=equivariant)
    initialise_backbone(model, pretrained)
    found, wanted = table(scores(model, reference, variants)), table(scores(pretrained, reference, variants))
    np.testing.assert_allclose(np.delete(found, [1, 2], 1), np.delete(wanted, [1, 2], 1), rtol=1e-5, atol=1e-5)
    assert len(np.unique(found[:, 2].round(4))) > len(variants) / 2
    assert ((found[:, 1] > 0) & (found[:, 1] < 1)).all()


def test_an_equivariant_model_is_asked_once_and_says_the_same_of_both_strands(
    reference: Reference, variants: list[Variant]
) -> None:
    model = masked(equivariant=True)
    for variant in (v for v in variants if len(v.ref) == len(v.alt)):
        window = read_window(reference, variant, WINDOW)
        seen = []
        for own in (window, window.other_strand()):
            hidden = own.context.copy()
            hidden[own.start : own.end] = alphabet.MASK
            with torch.inference_mode():
                logits = model(torch.from_numpy(hidden)[None])[0]
            log_p = logits[own.start : own.end, alphabet.A : alphabet.T + 1].double().log_softmax(-1)
            index = torch.arange(len(own.alt))
            at = own.context[own.start : own.end].astype(int) - alphabet.A, own.alt.astype(int) - alphabet.A
            seen.append(float((log_p[index, at[1]] - log_p[index, at[0]]).sum()))
        assert seen[0] == pytest.approx(seen[1], abs=1e-5)
        assert scores(model, reference, [variant])[0].llr == pytest.approx(seen[0], abs=1e-5)


def test_what_is_shared_is_read_once(reference: Reference, variants: list[Variant]) -> None:
    three = [read_window(reference, v, WINDOW) for v in variants[:3]]
    rows = lay_out(three, share=True, before=1)
    assert rows.prefix.shape == (2, WINDOW // 2 - 2)  # on the reverse strand one base less stands before the site
    assert rows.suffix.shape[0] == 2 + 6
    near = [read_window(reference, v, WINDOW, 22) for v in variants[:5]]
    assert len({window.span for window in near}) == 1
    assert lay_out(near, share=True, before=1).prefix.shape[0] == 2
    assert lay_out(near, share=False, before=1).suffix.shape[0] == 20


def test_windows_of_a_step_hold_their_variant_in_the_middle_half(reference: Reference, variants: list[Variant]) -> None:
    step = widest_step(WINDOW)
    for variant in variants:
        span = place_window(reference, variant, WINDOW, step).span
        middle = (variant.trimmed().start + variant.trimmed().end) // 2
        assert 0 <= span.start <= middle <= span.end <= SIZE
        assert span.length == WINDOW or span.start == 0 or span.end == SIZE
        if span.length == WINDOW:
            assert min(middle - span.start, span.end - middle) >= WINDOW // 2 - step


def test_every_variant_is_in_one_batch_of_its_like(reference: Reference, variants: list[Variant]) -> None:
    windows = [read_window(reference, v, WINDOW) for v in variants]
    for size in (1, 3, 100):
        found = list(batches(windows, size))
        assert sorted(place for batch in found for place in batch) == list(range(len(variants)))
        assert max(map(len, found)) <= size
        for batch in found:
            longest = [max(windows[place].context.size, windows[place].alternative.size) for place in batch]
            assert max(longest) <= 1.2 * min(longest)


def test_a_variant_without_a_batch_does_not_shift_the_others(
    reference: Reference, variants: list[Variant], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("genomamba.scoring.variants.batches", lambda *given: list(batches(*given))[1:])
    with pytest.raises(AssertionError, match="a variant is in no batch"):
        scores(causal(), reference, variants)


def test_a_batch_that_does_not_fit_is_halved_where_the_size_is_planned(
    reference: Reference, variants: list[Variant], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = causal()
    wanted = scores(model, reference, variants)
    scorer = VariantScorer(model, reference, window=WINDOW, batch_size=None, device=CPU, with_distances=True)
    fits = type(scorer._alleles).__call__

    def small(self: Any, rows: Any) -> Any:
        if rows.suffix.shape[0] > 16:
            raise torch.OutOfMemoryError("too much")
        return fits(self, rows)

    monkeypatch.setattr(type(scorer._alleles), "__call__", small)
    assert_same(list(scorer(variants)), wanted)
    assert scorer.batch_size <= 8
    fixed = VariantScorer(model, reference, window=WINDOW, batch_size=30, device=CPU)
    with pytest.raises(Exception, match=r"batch_size: .* do not fit the memory; give a smaller --batch-size, or auto"):
        list(fixed(variants))


@pytest.mark.gpu
@pytest.mark.parametrize("name", MODELS)
def test_a_gpu_gives_what_the_cpu_gives(name: str, reference: Reference, variants: list[Variant]) -> None:
    on_cpu = scores(MODELS[name](), reference, variants)
    for reuse in (True, False):
        on_gpu = scores(MODELS[name](), reference, variants, device=torch.device("cuda"), reuse_state=reuse)
        assert_same(on_gpu, on_cpu, within=1e-3)
