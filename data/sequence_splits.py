"""Training, dev and test sequences that share nothing: neither a sequence nor its reverse complement."""

from __future__ import annotations

import hashlib
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from genomamba.data.sequences import SPLITS, LabelledSequence, LabelledSequences
from genomamba.errors import LabelError
from genomamba.genome import alphabet
from genomamba.genome.alphabet import Ids

Leaks = Literal["refuse", "drop"]
_HASH_BYTES = 8


class SequenceSplits(NamedTuple):
    """Sequences by what they are for, and what was left out of the input on the way."""

    train: list[LabelledSequence]
    dev: list[LabelledSequence]
    test: list[LabelledSequence]
    dropped: dict[str, int]  # reason → sequences


def split_sequences(
    found: LabelledSequences, *, leaks: Leaks, dev_share: float, seed: int, regression: bool = False
) -> SequenceSplits:
    """The splits that the input names, without what would flatter the figures.

    Within a split a sequence counts once; one that stands there with several classes says nothing and is left out.
    Between splits, test keeps what it has: what stands in test, as it is or as its reverse complement, may not be in
    train or dev, nor what stands in dev be in train; intervals of a BED may not overlap either. Where the input has
    no dev, a share of train becomes dev, without what overlaps it; which, depends on sequences and seed alone.

    Args:
        found: what was read.
        leaks: what to do with sequences that two splits share: refuse the input, or drop them from the training side.
        dev_share: of train that becomes dev where there is none.
        seed: which share.
        regression: whether labels are numbers, which duplicates may differ in.

    Raises:
        LabelError: rows without a split beside rows with one, nothing to train on, or a leak.
    """
    dropped: Counter[str] = Counter(found.left_out)
    by_split: dict[str, list[LabelledSequence]] = {name: [] for name in SPLITS}
    for item in found.items:
        by_split[item.split or "train"].append(item)
    for name in SPLITS:
        by_split[name] = _once_each(by_split[name], name, dropped, regression)
    held_out: dict[int, LabelledSequence] = {}
    leaking: list[tuple[LabelledSequence, LabelledSequence]] = []
    for name in reversed(SPLITS):
        kept = []
        places = _Places(held_out.values())
        for item in by_split[name]:
            twin = held_out.get(sequence_key(item.ids))
            other = twin or places.overlapping(item)
            if other is None:
                kept.append(item)
            else:
                leaking.append((item, other))
                how = "in {} and in {}" if twin else "in {}, overlapping one in {}"
                dropped[how.format(name, other.split)] += 1
        by_split[name] = kept
        held_out |= {sequence_key(item.ids): item for item in kept}
    if leaking and leaks == "refuse":
        _refuse(leaking, found.source)
    train, dev = by_split["train"], by_split["dev"]
    if not dev and dev_share > 0:
        train, dev = _draw_dev(train, dev_share, seed)
        places = _Places(dev)
        apart = [item for item in train if places.overlapping(item) is None]
        if len(apart) < len(train):
            dropped["in train, overlapping one in dev"] += len(train) - len(apart)
        train = apart
    return SequenceSplits(train, dev, by_split["test"], dict(dropped))


def sequence_key(ids: Ids) -> int:
    """A hash that a sequence shares with its reverse complement and, but for chance (2^-64), with nothing else."""
    either = min(ids.tobytes(), alphabet.reverse_complement(ids).tobytes())
    return int.from_bytes(hashlib.blake2b(either, digest_size=_HASH_BYTES).digest(), "little")


def sequence_keys(items: Iterable[LabelledSequence]) -> NDArray[np.uint64]:
    """Sorted keys of the sequences, for a model to remember what it has seen."""
    return np.unique(np.fromiter((sequence_key(item.ids) for item in items), dtype=np.uint64))


def unseen(
    items: Sequence[LabelledSequence], seen: NDArray[np.uint64], *, leaks: Leaks, source: str
) -> list[LabelledSequence]:
    """The sequences that training has not seen on either strand.

    Raises:
        LabelError: there is one that it has, and ``leaks`` is ``refuse``; or there are no others.
    """
    keys = np.fromiter((sequence_key(item.ids) for item in items), dtype=np.uint64, count=len(items))
    known = np.isin(keys, seen)
    if known.any() and (leaks == "refuse" or known.all()):
        raise LabelError(
            f"the model was trained or calibrated on {int(known.sum())} of {len(items)} sequences, or on their "
            "reverse complements, this one first",
            "measure on others" + (", or pass --leaks drop to leave these out" if not known.all() else ""),
            file=source,
            line=items[int(np.argmax(known))].line,
            field="sequence",
        )
    return [item for item, is_known in zip(items, known, strict=True) if not is_known]


def once_each(items: Sequence[LabelledSequence], *, regression: bool) -> tuple[list[LabelledSequence], dict[str, int]]:
    """One split as `split_sequences` would have it, and what was left out."""
    dropped: Counter[str] = Counter()
    return _once_each(items, items[0].split or "the input" if items else "", dropped, regression), dict(dropped)


def _once_each(
    items: Sequence[LabelledSequence], split: str, dropped: Counter[str], regression: bool
) -> list[LabelledSequence]:
    labels: dict[bytes, set[str]] = {}
    for item in items:
        labels.setdefault(item.ids.tobytes(), set()).add(item.label)
    kept, seen = [], set()
    for item in items:
        text = item.ids.tobytes()
        if len(labels[text]) > 1 and not regression:
            dropped[f"of several classes in {split}"] += 1
        elif text in seen and not (regression and len(labels[text]) > 1):
            dropped[f"twice in {split}"] += 1
        else:
            seen.add(text)
            kept.append(item)
    return kept


class _Places:
    """Intervals of the genome, to be asked which of them another one overlaps."""

    def __init__(self, items: Iterable[LabelledSequence]) -> None:
        self._starts: dict[str, list[int]] = {}
        self._furthest: dict[str, list[tuple[int, LabelledSequence]]] = {}  # ends last, of those up to here
        placed = [(item.place, item) for item in items if item.place is not None]
        for place, item in sorted(placed, key=lambda pair: (pair[0].contig, pair[0].start)):
            furthest = self._furthest.setdefault(place.contig, [])
            before = furthest[-1] if furthest else (-1, item)
            furthest.append((place.end, item) if place.end > before[0] else before)
            self._starts.setdefault(place.contig, []).append(place.start)

    def overlapping(self, item: LabelledSequence) -> LabelledSequence | None:
        """One that shares a base with the item, on either strand."""
        if item.place is None or item.place.contig not in self._starts:
            return None
        number = bisect_left(self._starts[item.place.contig], item.place.end)
        if not number:
            return None
        end, other = self._furthest[item.place.contig][number - 1]
        return other if end > item.place.start else None


def _draw_dev(
    train: list[LabelledSequence], share: float, seed: int
) -> tuple[list[LabelledSequence], list[LabelledSequence]]:
    """By a hash of sequence and seed, so that neither order nor other sequences matter, and twins stay together."""
    salt = seed.to_bytes(8, "little")

    def draw(item: LabelledSequence) -> float:
        digest = hashlib.blake2b(sequence_key(item.ids).to_bytes(8, "little"), digest_size=8, salt=salt).digest()
        return int.from_bytes(digest, "little") / 2**64

    drawn = [draw(item) < share for item in train]
    rest = [item for item, is_dev in zip(train, drawn, strict=True) if not is_dev]
    return rest, [item._replace(split="dev") for item, is_dev in zip(train, drawn, strict=True) if is_dev]


def _refuse(leaking: list[tuple[LabelledSequence, LabelledSequence]], source: str) -> None:
    first, second = sorted(leaking[0], key=lambda item: item.line)
    if np.array_equal(first.ids, second.ids):
        what = "the same sequence"
    else:
        is_twin = sequence_key(first.ids) == sequence_key(second.ids)
        what = "a sequence and its reverse complement" if is_twin else "intervals that overlap"
    raise LabelError(
        f"{first.split or 'train'} (line {first.line}) and {second.split or 'train'} (line {second.line}) hold {what}; "
        f"{len(leaking)} sequences are concerned",
        "pass --leaks drop to leave them out of training and dev, or correct the splits",
        file=source,
        field="split",
    )


def check_split(items: Sequence[LabelledSequence], split: str, classes: Sequence[str], source: str) -> None:
    """Refuses a split that nothing can be learned from or measured on.

    Args:
        items: of the split.
        split: its name.
        classes: that the model knows; none for a regression.
        source: name of the file.

    Raises:
        LabelError: it is empty; it has one class only; or a label is none of the classes, or not a finite number.
    """
    if not items:
        raise LabelError("the split is empty", f"mark some rows {split}", file=source, field="split", value=split)
    if not classes:
        for item in items:
            number(item, source)
        return
    for item in items:
        if item.label not in classes:
            raise LabelError(
                f"training has no such class; it has {', '.join(classes[:8])}",
                "correct the label, or delete the row",
                file=source,
                line=item.line,
                field="label",
                value=item.label,
            )
    counts = Counter(item.label for item in items)
    if len(counts) < 2:
        (only,) = counts
        raise LabelError(
            f"the split has {counts[only]} sequences, all of class {only}",
            "give it sequences of both classes",
            file=source,
            field="split",
            value=split,
        )


def number(item: LabelledSequence, source: str) -> float:
    """The label as a number.

    Raises:
        LabelError: it is not a finite one.
    """
    try:
        value = float(item.label)
    except ValueError:
        value = np.nan
    if not np.isfinite(value):
        raise LabelError(
            "a regression needs a finite number",
            "correct it, or delete the row",
            file=source,
            line=item.line,
            field="label",
            value=item.label,
        )
    return value
