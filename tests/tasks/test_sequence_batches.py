"""What training shows of a sequence: a pure function of seed, epoch and sample; and steps as CUDA graphs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from genomamba.data.datasets import SampleKey
from genomamba.genome import alphabet
from genomamba.model.config import ModelConfig, SequenceHeadConfig
from genomamba.model.sequence_heads import SequenceModel
from genomamba.scoring.sequences import stack_ids
from genomamba.tasks.config import AugmentConfig, OptimizerConfig
from genomamba.tasks.sequences import SequenceBatch, SequenceTask, TrainingSequences, moved


def training(augment: AugmentConfig, *, either_strand: bool = False, seed: int = 0) -> TrainingSequences:
    random = np.random.default_rng(0)
    sequences = [random.integers(alphabet.A, alphabet.T + 1, 50, dtype=np.uint8) for _ in range(200)]
    return TrainingSequences(sequences, torch.arange(200), augment, either_strand=either_strand, seed=seed)


def test_a_batch_does_not_depend_on_its_neighbours() -> None:
    data = training(AugmentConfig(shift=3, mutate=0.1), either_strand=True)
    whole = data.__getitems__([SampleKey(1, number) for number in range(200)])
    some = data.__getitems__([SampleKey(1, number) for number in (7, 3)])
    assert torch.equal(some.ids, whole.ids[[7, 3]])
    assert some.target.tolist() == [7, 3]
    other = data.__getitems__([SampleKey(2, number) for number in range(200)])
    assert not torch.equal(other.ids, whole.ids)


def test_half_of_the_sequences_are_shown_from_the_other_strand() -> None:
    data = training(AugmentConfig(), either_strand=True)
    shown = data.__getitems__([SampleKey(0, number) for number in range(200)]).ids.numpy()
    given = np.stack(data.sequences)
    forward = (shown == given).all(1)
    backward = (shown == alphabet.reverse_complement(given)).all(1)
    assert (forward ^ backward).all()
    assert 70 < forward.sum() < 130


def test_mutations_replace_the_share_that_was_asked_for() -> None:
    data = training(AugmentConfig(mutate=0.2))
    shown = data.__getitems__([SampleKey(0, number) for number in range(200)]).ids.numpy()
    changed = (shown != np.stack(data.sequences)).mean()
    assert changed == pytest.approx(0.15, abs=0.01)  # a quarter of the new bases are the old ones


def test_moved_sequences_lose_at_one_end_and_gain_n_at_the_other() -> None:
    shifts = np.array([-5, -1, 0, 2, 9, 1])
    ids = np.stack([alphabet.encode("ACGA")] * len(shifts))
    flipped = np.array([False] * 5 + [True])
    shown = [alphabet.decode(row) for row in moved(ids, None, flipped, shifts)]
    assert shown == ["NNNN", "CGAN", "ACGA", "NNAC", "NNNN", "NTCG"]


def test_padding_stays_where_it_is() -> None:
    ids, length = stack_ids([alphabet.encode("ACGTT"), alphabet.encode("AAG")])
    assert length is not None
    shown = moved(ids.numpy(), length.numpy(), np.array([True, True]), np.array([0, 1]))
    assert alphabet.decode(shown[0]) == "AACGT"
    assert alphabet.decode(shown[1][:3]) == "NCT"
    assert (shown[1][3:] == alphabet.PAD).all()


@pytest.mark.gpu
@pytest.mark.parametrize("strands", ["both", "given", "joined"])
def test_steps_replayed_as_cuda_graphs_are_the_plain_ones(strands: str) -> None:
    def train(graph: bool) -> list[Tensor]:
        torch.manual_seed(0)
        head = SequenceHeadConfig(strands=strands)  # type: ignore[arg-type]
        model = SequenceModel(ModelConfig(d_model=64, n_layer=2, bidirectional=True), head, ["a", "b"]).cuda()
        task = SequenceTask(model, OptimizerConfig(), 3, cuda_graph=graph).cuda()
        task.on_fit_start()
        assert (task._graphed is not None) == graph
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
        losses = []
        for step in range(3):
            ids = torch.randint(7, 11, (8, 101), generator=torch.Generator().manual_seed(step)).cuda()
            torch.manual_seed(step)  # of the head's dropout
            optimizer.zero_grad(set_to_none=True)
            batch = SequenceBatch(ids, None, torch.arange(8).cuda() % 2, list(range(8)))
            loss = task.training_step(batch, step)
            loss.backward()
            optimizer.step()
            losses.append(loss.detach().clone())
        return [*losses, *(p.detach() for p in model.parameters())]

    assert all(torch.equal(a, b) for a, b in zip(train(True), train(False), strict=True))
