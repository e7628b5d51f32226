"""A small genome and changes of every kind on it, for tests of scoring."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from genomamba.data.reference import Reference
from genomamba.genome.variant import Variant
from genomamba.model.backbone import CausalLM, MaskedLM
from genomamba.model.config import ModelConfig, VariantHeadConfig
from genomamba.model.heads import VariantClassifier

CPU = torch.device("cpu")
SIZE = 3_000


def write_genome(folder: Path, *, reverse: bool = False, extra: str = "") -> Reference:
    """One contig of random bases with repeats; ``reverse``: its reverse complement."""
    random = np.random.default_rng(5)
    sequence = "".join(random.choice(list("ACGT"), SIZE)) + extra
    sequence = sequence[:900] + "AC" * 20 + sequence[940:]
    if reverse:
        sequence = sequence[::-1].translate(str.maketrans("ACGT", "TGCA"))
    path = folder / ("reverse.fa" if reverse else "genome.fa")
    path.write_text(f">chr\n{sequence}\n")
    return Reference.open(path)


def some_variants(reference: Reference) -> list[Variant]:
    """SNVs (alone, all three at one place, near one another), an MNV, indels short and long, and both edges."""
    sequence = reference.sequence("chr", 0, reference.contigs["chr"])

    def change(start: int, length: int, alt: str) -> Variant:
        return Variant("chr", start, sequence[start : start + length], alt)

    def others(start: int) -> list[str]:
        return [base for base in "ACGT" if base != sequence[start]]

    found = [change(500, 1, base) for base in others(500)]
    found += [change(place, 1, others(place)[0]) for place in (505, 511, 740, 1200, 1201, 1400, 2000)]
    found += [change(1300, 3, "".join(others(place)[1] for place in range(1300, 1303)))]
    found += [change(1500, 1, sequence[1500] + "TTAGG"), change(1600, 4, sequence[1600]), change(905, 3, sequence[905])]
    found += [change(1700, 6, "GATTACAGATT"), change(1800, 1, sequence[1800] + "ACGT" * 10), change(1900, 41, "G")]
    found += [change(place, 1, others(place)[2]) for place in (0, 1, 7, SIZE - 1, SIZE - 9)]
    found += [change(SIZE - 4, 3, sequence[SIZE - 4]), change(0, 2, sequence[1])]
    return found


def lively(model: torch.nn.Module) -> torch.nn.Module:
    """Weights so large that what is read shows in every output."""
    torch.manual_seed(3)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "embedding" in name:
                parameter.normal_(std=0.7)
            elif ".head." in f".{name}" and parameter.dim() == 2:
                parameter.normal_(std=0.5)
    return model.eval()


def causal(layers: str = "mamba", **more: int) -> CausalLM:
    torch.manual_seed(1)
    n_layer = len(layers.split())
    model = CausalLM(ModelConfig(d_model=16, n_layer=n_layer, d_state=4, headdim=8, layers=layers, **more))
    assert isinstance(lively(model), CausalLM)
    return model


def classifier(*, bidirectional: bool = False, equivariant: bool = False) -> VariantClassifier:
    torch.manual_seed(1)
    head = VariantHeadConfig(d_hidden=8, flank=5)
    config = ModelConfig(d_model=16, n_layer=2, d_state=4, bidirectional=bidirectional, rc_equivariant=equivariant)
    model = VariantClassifier(config, head)
    lively(model)
    return model


def masked(*, equivariant: bool, bidirectional: bool = True) -> MaskedLM:
    torch.manual_seed(1)
    model = MaskedLM(
        ModelConfig(d_model=16, n_layer=2, d_state=4, bidirectional=bidirectional, rc_equivariant=equivariant)
    )
    lively(model)
    return model
