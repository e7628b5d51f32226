"""Splits of sequences share nothing, and what is left out is counted."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genomamba.data.sequence_splits import (
    Leaks,
    check_split,
    once_each,
    sequence_key,
    sequence_keys,
    split_sequences,
    unseen,
)
from genomamba.data.sequences import LabelledSequence, LabelledSequences, class_names
from genomamba.errors import LabelError
from genomamba.genome import alphabet
from genomamba.genome.interval import Interval


def sequences(*rows: tuple[str, str, str]) -> LabelledSequences:
    items = [
        LabelledSequence(alphabet.encode(text), label, split, line)
        for line, (text, label, split) in enumerate(rows, start=2)
    ]
    return LabelledSequences("t.csv", items, [])


def letters(items: list[LabelledSequence]) -> list[str]:
    return [alphabet.decode(item.ids) for item in items]


LEAKY = sequences(
    ("AAAA", "x", "train"),
    ("TTTT", "x", "test"),  # the reverse complement of line 2
    ("ACGG", "y", "dev"),
    ("ACGG", "y", "test"),
    ("CCCA", "x", "train"),
    ("CCCA", "y", "dev"),
    ("GATC", "x", "train"),
    ("GATC", "x", "train"),
    ("AAGA", "x", "train"),
    ("AAGA", "y", "train"),
)


def test_test_keeps_its_own_and_dev_goes_before_train() -> None:
    splits = split_sequences(LEAKY, leaks="drop", dev_share=0.1, seed=0)
    assert letters(splits.test) == ["TTTT", "ACGG"]
    assert letters(splits.dev) == ["CCCA"]
    assert letters(splits.train) == ["GATC"]
    assert splits.dropped == {
        "in train and in test": 1,
        "in dev and in test": 1,
        "in train and in dev": 1,
        "twice in train": 1,
        "of several classes in train": 2,
    }


def test_a_leak_is_refused_with_both_rows_and_the_count() -> None:
    with pytest.raises(LabelError) as caught:
        split_sequences(LEAKY, leaks="refuse", dev_share=0.1, seed=0)
    assert str(caught.value) == (
        "t.csv: split: dev (line 4) and test (line 5) hold the same sequence; 3 sequences are concerned; "
        "pass --leaks drop to leave them out of training and dev, or correct the splits"
    )
    only = sequences(("AAAA", "x", "train"), ("TTTT", "x", "test"))
    with pytest.raises(LabelError, match="hold a sequence and its reverse complement; 1 sequences"):
        split_sequences(only, leaks="refuse", dev_share=0.1, seed=0)


DNA = st.text("ACGT", min_size=3, max_size=5)


@settings(max_examples=40)
@given(st.lists(st.tuples(DNA, st.sampled_from("xy"), st.sampled_from(["train", "dev", "test"])), min_size=1))
def test_no_two_splits_share_a_sequence_on_either_strand(rows: list[tuple[str, str, str]]) -> None:
    found = sequences(*rows)
    splits = split_sequences(found, leaks="drop", dev_share=0.0, seed=0)
    keys = [set(sequence_keys(part).tolist()) for part in splits[:3]]
    assert not (keys[0] & keys[1] | keys[0] & keys[2] | keys[1] & keys[2])
    assert sum(len(part) for part in splits[:3]) + sum(splits.dropped.values()) == len(rows)
    # test loses nothing but repetitions
    kept, _ = once_each([item for item in found.items if item.split == "test"], regression=False)
    assert splits.test == kept


PLACES = st.tuples(
    st.sampled_from("ab"), st.integers(0, 60), st.integers(1, 9), st.sampled_from(["train", "dev", "test"])
)


@settings(max_examples=40)
@given(st.lists(PLACES, min_size=1, max_size=12))
def test_intervals_of_two_splits_never_overlap(rows: list[tuple[str, int, int, str]]) -> None:
    random = np.random.default_rng(0)
    items = [
        LabelledSequence(
            random.integers(7, 11, 40, dtype=np.uint8), "x", split, line, place=Interval(contig, start, start + size)
        )
        for line, (contig, start, size, split) in enumerate(rows, start=1)
    ]
    found = LabelledSequences("r.bed", items, [])
    splits = split_sequences(found, leaks="drop", dev_share=0.0, seed=0)

    def overlap(a: LabelledSequence, b: LabelledSequence) -> bool:
        return a.place is not None and b.place is not None and a.place.overlaps(b.place)

    assert splits.test == [item for item in items if item.split == "test"]
    assert splits.dev == [i for i in items if i.split == "dev" and not any(overlap(i, j) for j in splits.test)]
    held = [*splits.dev, *splits.test]
    assert splits.train == [i for i in items if i.split == "train" and not any(overlap(i, j) for j in held)]
    unsplit = LabelledSequences("r.bed", [item._replace(split="train") for item in items], [])
    drawn = split_sequences(unsplit, leaks="refuse", dev_share=0.5, seed=0)
    assert not any(overlap(i, j) for i in drawn.train for j in drawn.dev)
    assert len(drawn.train) + len(drawn.dev) + sum(drawn.dropped.values()) == len(items)
    if splits.dropped:
        with pytest.raises(LabelError, match="hold intervals that overlap"):
            split_sequences(found, leaks="refuse", dev_share=0.0, seed=0)


@given(DNA)
def test_both_strands_have_one_key(text: str) -> None:
    ids = alphabet.encode(text)
    assert sequence_key(ids) == sequence_key(alphabet.reverse_complement(ids))
    assert sequence_key(ids) != sequence_key(alphabet.encode(text + "A"))


def test_the_dev_share_depends_on_sequences_and_seed_alone() -> None:
    random = np.random.default_rng(0)
    rows = [("".join(random.choice(list("ACGT"), 20)), "x", "train") for _ in range(1000)]
    splits = split_sequences(sequences(*rows), leaks="refuse", dev_share=0.2, seed=0)
    assert len(splits.train) + len(splits.dev) == 1000
    assert 150 < len(splits.dev) < 250
    assert all(item.split == "dev" for item in splits.dev)
    again = split_sequences(sequences(*rows[::-1]), leaks="refuse", dev_share=0.2, seed=0)
    assert set(letters(again.dev)) == set(letters(splits.dev))
    other = split_sequences(sequences(*rows), leaks="refuse", dev_share=0.2, seed=1)
    assert set(letters(other.dev)) != set(letters(splits.dev))


@pytest.mark.parametrize(("leaks", "left"), [("drop", ["CCC"]), ("refuse", None)])
def test_what_a_model_has_seen_is_not_measured(leaks: Leaks, left: list[str] | None) -> None:
    seen = sequence_keys(sequences(("AAC", "x", "train")).items)
    items = sequences(("CCC", "x", ""), ("GTT", "y", "")).items
    if left is None:
        with pytest.raises(LabelError, match=r"t.csv:3: sequence: the model was trained or calibrated on 1 of 2"):
            unseen(items, seen, leaks=leaks, source="t.csv")
    else:
        assert letters(unseen(items, seen, leaks=leaks, source="t.csv")) == left
    with pytest.raises(LabelError, match="on 1 of 1 sequences"):  # nothing would be left
        unseen(items[1:], seen, leaks=leaks, source="t.csv")


def test_numbers_may_differ_where_sequences_do_not() -> None:
    found = sequences(("AAC", "1.5", "train"), ("AAC", "2.5", "train"), ("AAC", "3", "test"))
    splits = split_sequences(found, leaks="drop", dev_share=0, seed=0, regression=True)
    assert (len(splits.train), len(splits.test)) == (0, 1)
    assert splits.dropped == {"in train and in test": 2}


def test_splits_that_nothing_can_be_learned_from_are_refused() -> None:
    both = sequences(("AAC", "x", "train"), ("CCC", "y", "train")).items
    check_split(both, "train", ["x", "y"], "t.csv")
    with pytest.raises(LabelError, match="split=dev: the split is empty; mark some rows dev"):
        check_split([], "dev", ["x", "y"], "t.csv")
    with pytest.raises(LabelError, match="the split has 1 sequences, all of class x"):
        check_split(both[:1], "train", ["x", "y"], "t.csv")
    with pytest.raises(LabelError, match=r"t.csv:3: label=y: training has no such class; it has x, z"):
        check_split(both, "dev", ["x", "z"], "t.csv")
    with pytest.raises(LabelError, match=r"t.csv:2: label=x: a regression needs a finite number"):
        check_split(both, "dev", [], "t.csv")


def test_classes_are_in_the_order_of_numbers_where_they_are_numbers() -> None:
    assert class_names(["10", "9", "b", "9", "-1", "a"]) == ["-1", "9", "10", "a", "b"]
