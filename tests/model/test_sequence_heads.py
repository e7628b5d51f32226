"""Pooling and heads: by hand, without padding, and the same from either strand."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from torch import Tensor

from genomamba.errors import CheckpointError, ConfigError
from genomamba.genome import alphabet
from genomamba.model.config import ModelConfig, Pooling, SequenceHeadConfig
from genomamba.model.folder import load_model, save_model
from genomamba.model.sequence_heads import Pool, SequenceModel, TokenModel

KINDS: dict[str, dict[str, Any]] = {
    "causal": {},
    "both ways": {"bidirectional": True},
    "both strands": {"bidirectional": True, "rc_equivariant": True, "rc_strand_order": "swapped", "n_layer": 3},
}
POOLINGS = get_args(Pooling)


def config(kind: str) -> ModelConfig:
    return ModelConfig(**{"d_model": 16, "n_layer": 2, "d_state": 4, **KINDS[kind]})


def bases(*shape: int) -> Tensor:
    return torch.randint(alphabet.A, alphabet.N + 1, shape)


@torch.no_grad()
def test_pooling_by_hand() -> None:
    hidden, length = torch.randn(2, 5, 3), torch.tensor([3, 5])
    hidden[0, 3:] = torch.nan  # what padding holds is nobody's business
    rows = [hidden[0, :3], hidden[1]]
    for how, by_hand in {"mean": lambda h: h.mean(0), "max": lambda h: h.amax(0), "last": lambda h: h[-1]}.items():
        pooled = Pool(3, how)(hidden, length)  # type: ignore[arg-type]
        torch.testing.assert_close(pooled, torch.stack([by_hand(h) for h in rows]))
    pool = Pool(3, "attention")
    assert pool.query is not None
    weights = [torch.softmax(h @ pool.query.weight[0], 0) for h in rows]
    expected = torch.stack([w @ h for w, h in zip(weights, rows, strict=True)])
    torch.testing.assert_close(pool(hidden.nan_to_num(7.0), length), expected)
    torch.testing.assert_close(Pool(3, "mean")(hidden[1:]), hidden[1:].mean(1))


@torch.no_grad()
def test_regions_by_hand() -> None:
    hidden, length = torch.randn(2, 6, 3), torch.tensor([4, 6])
    pool = Pool(3, "regions", regions=2)
    assert pool.query is not None
    torch.testing.assert_close(pool.center, torch.tensor([0.25, 0.75]))
    torch.testing.assert_close(pool.log_width.exp(), torch.tensor([0.25, 0.25]))
    rows = []
    for row, size in zip(hidden, length.tolist(), strict=True):
        place = (torch.arange(size) + 0.5) / size
        each = []
        for query, center in zip(pool.query.weight, (0.25, 0.75), strict=True):
            weight = torch.softmax(row[:size] @ query - (place - center) ** 2 / (2 * 0.25**2), 0)
            each.append(weight @ row[:size])
        rows.append(torch.cat(each))
    hidden[0, 4:] = torch.nan  # what padding holds is nobody's business
    torch.testing.assert_close(pool(hidden, length), torch.stack(rows))
    assert (pool(hidden[1:]) - pool(hidden[1:].flip(1))).abs().max() > 1e-2  # the order of tokens matters


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("pooling", "strands"), [*((how, "both") for how in POOLINGS), ("mean", "given"), ("max", "joined")]
)
@torch.no_grad()
def test_padding_and_neighbours_change_nothing(kind: str, pooling: str, strands: str) -> None:
    head = SequenceHeadConfig(pooling, strands)  # type: ignore[arg-type]
    model = SequenceModel(config(kind), head, ["a", "b", "c"]).eval()
    ids = bases(1, 21)
    batch = torch.full((3, 30), alphabet.PAD)
    batch[:, :30] = bases(3, 30)
    batch[1, :21], batch[1, 21:] = ids[0], alphabet.PAD
    among = model(batch, torch.tensor([30, 21, 9]))[1:2]
    torch.testing.assert_close(among, model(ids), rtol=1e-4, atol=1e-5)
    assert (model(bases(1, 21)) - among).abs().max() > 1e-4


def test_log_odds_by_hand_and_where_probabilities_round() -> None:
    model = SequenceModel(config("causal"), classes=["a", "b", "c"])
    model.log_weight.copy_(torch.tensor([0.0, 0.5, -0.5]))
    model.temperature.fill_(2.0)
    logits = torch.randn(5, 3)
    p = model.probabilities(logits).double()
    for target in range(3):
        found = model.log_odds(logits, target)
        assert found.dtype == torch.float64
        torch.testing.assert_close(found, torch.logit(p[:, target]), rtol=1e-5, atol=1e-5)
    sharp = torch.tensor([[4000.0, 0.0, -9000.0]])
    assert model.probabilities(sharp).tolist() == [[1.0, 0.0, 0.0]]
    expected = {0: 2000.25, 1: -2000.25, 2: -4500 + 0.25 - 2000}
    for target, value in expected.items():
        assert model.log_odds(sharp, target).item() == pytest.approx(value, rel=1e-12)


def other_strand(ids: Tensor) -> Tensor:
    return torch.from_numpy(alphabet.reverse_complement(ids.numpy()).copy()).long()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("pooling", POOLINGS)
@torch.no_grad()
def test_averaged_over_strands_either_gets_the_same_answer(kind: str, pooling: str) -> None:
    ids = bases(2, 17)
    model = SequenceModel(config(kind), SequenceHeadConfig(pooling), ["no", "yes"]).eval()  # type: ignore[arg-type]
    assert torch.equal(model(ids), model(other_strand(ids)))
    each = [model(strand, given_only=True) for strand in (ids, other_strand(ids))]
    torch.testing.assert_close(model(ids), (each[0] + each[1]) / 2)
    assert (each[0] - each[1]).abs().max() > 1e-4


@pytest.mark.parametrize("strands", ["given", "joined"])
@torch.no_grad()
def test_otherwise_it_knows_which_strand_was_given(strands: str) -> None:
    ids = bases(2, 17)
    for kind in KINDS:
        model = SequenceModel(config(kind), SequenceHeadConfig(strands=strands), ["a", "b"]).eval()  # type: ignore[arg-type]
        assert (model(ids) - model(other_strand(ids))).abs().max() > 1e-4
    joined = SequenceModel(config("causal"), SequenceHeadConfig(strands="joined", d_hidden=5), ["a", "b"])
    assert joined.features(ids)[0].shape == (2, 32)


@torch.no_grad()
def test_calibration_takes_class_weights_back_and_divides_by_the_temperature() -> None:
    model = SequenceModel(config("causal"), classes=["a", "b", "c"])
    model.log_weight.copy_(torch.tensor([2.0, 1.0, 0.5]).log())
    model.temperature.fill_(2.0)
    probability = torch.tensor([[0.2, 0.3, 0.5]])
    weighted = (probability**2 * torch.tensor([2.0, 1.0, 0.5])).log()  # logits of a weighted, overconfident model
    torch.testing.assert_close(model.probabilities(weighted), probability)
    assert model.called(torch.tensor([[0.2, 0.3, 0.5], [0.6, 0.3, 0.1]])).tolist() == [2, 0]
    two = SequenceModel(config("causal"), classes=["no", "yes"])
    two.threshold.fill_(0.3)
    assert two.called(torch.tensor([[0.65, 0.35], [0.75, 0.25]])).tolist() == [1, 0]


@torch.no_grad()
def test_a_regression_answers_in_the_units_of_its_labels() -> None:
    model = SequenceModel(config("causal"))
    model.center.fill_(10.0)
    model.scale.fill_(4.0)
    assert model.is_regression
    torch.testing.assert_close(model.values(torch.tensor([[0.5], [-1.0]])), torch.tensor([12.0, 6.0]))


@torch.no_grad()
def test_tracks_of_a_model_of_both_strands_turn_with_the_sequence() -> None:
    ids = bases(2, 17)
    tracks = TokenModel(config("both strands"), ["a", "b"]).eval()
    assert torch.equal(tracks(ids), tracks(other_strand(ids)).flip(1))
    assert tracks(ids).std() > 1e-3


@torch.no_grad()
def test_tracks_of_a_causal_model_are_its_heads_of_each_token() -> None:
    model, ids = TokenModel(config("causal"), list("abcd")).eval(), bases(2, 12)
    torch.testing.assert_close(model(ids)[:, 7], model.head(model.backbone(ids[:, :8])[0][:, -1]), rtol=1e-4, atol=1e-5)


def test_an_unknown_pooling_is_named() -> None:
    with pytest.raises(ConfigError, match="pooling=sum: no such pooling"):
        Pool(3, "sum")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("field", "value", "problem"),
    [
        ("pooling", "sum", "no such pooling; choose from mean"),
        ("strands", "two", "no such strands"),
        ("dropout", 1.0, "it must be between"),
        ("d_hidden", -1, "it must be at least 0"),
    ],
)
def test_a_head_that_cannot_be_is_named(field: str, value: Any, problem: str) -> None:
    with pytest.raises(ConfigError, match=f"head.{field}={value}: {problem}"):
        SequenceHeadConfig(**{field: value})


@pytest.mark.parametrize("kind", ["causal", "both strands"])
@torch.no_grad()
def test_a_log_link_gives_the_exponential_of_what_the_head_predicts(kind: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    plain = TokenModel(config(kind), ["a", "b"]).eval()
    rates = TokenModel(config(kind), ["a", "b"], link="log").eval()
    rates.load_state_dict(plain.state_dict())
    ids = torch.randint(alphabet.A, alphabet.T + 1, (2, 30))
    torch.testing.assert_close(rates(ids), plain(ids).exp())
    torch.testing.assert_close(rates.predictors(ids), plain(ids))
    hidden = rates.backbone(ids, final_state=False)[0]
    torch.testing.assert_close(rates.of_hidden(hidden), rates(ids))
    save_model(rates, tmp_path / "m", card="", provenance={})
    torch.testing.assert_close(load_model(tmp_path / "m")(ids), rates(ids))
    with pytest.raises(ConfigError, match="link=logit: no such link; choose from identity, log"):
        TokenModel(config(kind), ["a"], link="logit")  # type: ignore[arg-type]
    path = tmp_path / "m" / "config.json"
    path.write_text(path.read_text().replace('"log"', '"logit"'))
    with pytest.raises(CheckpointError, match=r"config\.json: link=logit: no such link; it knows identity, log"):
        load_model(tmp_path / "m")
