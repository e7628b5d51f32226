"""A stream's figure is that of one pass over the whole region, wherever the segments end."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from genomamba.data.reference import Reference
from genomamba.genome.interval import Interval
from genomamba.model.backbone import CausalLM
from genomamba.model.config import ModelConfig
from genomamba.scoring.regions import RegionScorer
from genomamba.scoring.streaming import StreamingScorer


@pytest.fixture
def reference(tmp_path: Path) -> Reference:
    random = np.random.default_rng(0)
    sequence = "".join(random.choice(list("ACGTacgtN"), 300))
    (tmp_path / "g.fa").write_text(f">c\n{sequence}\n>n\nNNNN\n>one\nA\n")
    return Reference.open(tmp_path / "g.fa")


@pytest.mark.parametrize("strand", ["+", "-"])
@pytest.mark.parametrize("segment", [1, 7, 64, 1000])
def test_segments_do_not_change_the_figure(reference: Reference, segment: int, strand: str) -> None:
    device = torch.device("cpu")
    model = CausalLM(ModelConfig(d_model=8, n_layer=2, d_state=4))
    region = Interval("c", 3, 290, strand)
    (whole,) = RegionScorer(model, reference, window=300, batch_size=1, device=device)([region])
    (streamed,) = StreamingScorer(model, reference, segment=segment, device=device)([region])
    assert streamed.bases == whole.bases > 200
    assert streamed.bits == pytest.approx(whole.bits, rel=1e-5)


def test_nothing_to_predict_is_no_figure(reference: Reference) -> None:
    model = CausalLM(ModelConfig(d_model=8, n_layer=1, d_state=4))
    score = StreamingScorer(model, reference, segment=2, device=torch.device("cpu"))
    regions = [Interval("n", 0, 4), Interval("one", 0, 1), Interval("c", 5, 5)]
    assert [(each.bases, each.bits) for each in score(regions)] == [(0, 0.0)] * 3
