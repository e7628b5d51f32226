"""A variant as the sequences that a model compares: reference and alternative, on one or both strands."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from genomamba.data.reference import Reference
from genomamba.genome import alphabet
from genomamba.genome.interval import Interval
from genomamba.genome.variant import Variant, normalise


class AllelePair(NamedTuple):
    """Rows in the order (strand, ref | alt); the two alleles span the same genome."""

    rows: list[np.ndarray]  # uint8 ids
    sites: list[tuple[int, int]]  # where the allele lies within each row
    at_edge: bool  # the window was cut by an end of the contig


def longest_allele(window: int) -> int:
    """Changes longer than this leave too little context in a window of ``window`` bases."""
    return window // 2


def variant_window(variant: Variant, contig_length: int, window: int) -> Interval:
    """``window`` bases around the middle of the reference allele, cut where the contig ends."""
    middle = (variant.start + variant.end) // 2
    start = middle - window // 2
    return Interval(variant.contig, max(0, start), min(contig_length, start + window))


def allele_pair(reference: Reference, variant: Variant, window: int, strands: Sequence[str] = "+-") -> AllelePair:
    """Reads the window and writes both alleles into it.

    The variant is left-aligned and trimmed first, so that every spelling of one change gives the same rows.

    Args:
        reference: the genome; its bases, not the variant's, fill the context.
        variant: its ref must agree with the reference, and its changed part not exceed `longest_allele`.
        window: genomic span in bases.
        strands: any of "+" and "-", in the order wanted.
    """
    variant = normalise(variant, reference.sequence).trimmed()
    span = variant_window(variant, reference.contigs[variant.contig], window)
    context = reference.ids(span)
    left, right = context[: variant.start - span.start], context[variant.end - span.start :]
    rows, sites = [], []
    for strand in strands:
        for allele in (variant.ref, variant.alt):
            row = np.concatenate([left, alphabet.encode(allele.encode()), right])
            site = (left.size, left.size + len(allele))
            if strand == "-":
                row, site = alphabet.reverse_complement(row), (row.size - site[1], row.size - site[0])
            rows.append(row)
            sites.append(site)
    return AllelePair(rows, sites, span.length < window)


def stack_pairs(pairs: Sequence[AllelePair], strands: int) -> tuple[Tensor, Tensor, Tensor]:
    """(ids (V, S, 2, L) uint8, length (V, S, 2), site (V, S, 2, 2)), right-padded."""
    longest = max(row.size for pair in pairs for row in pair.rows)
    ids = np.full((len(pairs), 2 * strands, longest), alphabet.PAD, dtype=np.uint8)
    for number, pair in enumerate(pairs):
        for place, row in enumerate(pair.rows):
            ids[number, place, : row.size] = row
    shape = (len(pairs), strands, 2)
    length = torch.tensor([[row.size for row in pair.rows] for pair in pairs]).view(shape)
    site = torch.tensor([pair.sites for pair in pairs]).view(*shape, 2)
    return torch.from_numpy(ids).view(*shape, longest), length, site
