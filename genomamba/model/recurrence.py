"""A causal model run as a recurrence: prefill, read on, step, generate, stream; memory does not grow with what is read.

Nothing here is differentiable: a graph would hold on to every token.

(Attention without a window is the exception: its state holds every key and value.)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from genomamba.genome import alphabet
from genomamba.model.backbone import Backbone, CausalLM, base_log_probability


class Continuation(NamedTuple):
    """Where a model stands after what it has read."""

    logits: Tensor  # (B, padded vocabulary), fp32, of the next token
    state: list[Any]  # one per block


class Reading(NamedTuple):
    """What a model made of one stretch."""

    hidden: Tensor  # (B, L, d_model)
    log_p: Tensor  # (B, L), nats, fp32: of each token given all before it; 0 for what is no base, or has none before it
    after: Continuation  # where the model stands now


class Causal(Protocol):
    """A causal backbone and what turns its hidden states into logits: a language model, or a classifier on one."""

    @property
    def backbone(self) -> Backbone: ...
    @property
    def lm_head(self) -> nn.Module: ...


class Sampling(NamedTuple):
    """How the next token is drawn from logits.

    Attributes:
        temperature: logits are divided by it; 0 takes the most probable token.
        top_k: keep that many most probable tokens; None keeps all.
        top_p: keep the fewest tokens whose probabilities sum to at least this (Holtzman et al. 2020).
        allowed: ids that may be drawn at all.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float = 1.0
    allowed: tuple[int, ...] = alphabet.BASES


EVERY_BASE = Sampling()


@torch.no_grad()
def prefill(model: CausalLM, ids: Tensor) -> Continuation:
    """Reads ids (B, L), L ≥ 1, in parallel."""
    hidden, state = model.backbone(ids)
    return Continuation(model.lm_head(hidden[:, -1]).float(), state)


@torch.no_grad()
def read_on(model: Causal, ids: Tensor, at: Continuation | None = None, *, last: bool = False) -> Reading:
    """Reads ids (B, L), L ≥ 1, after what was read; any split of a sequence gives what the whole gives.

    Args:
        model: causal, in eval mode.
        ids: right-padded where rows differ in length; padding has no say in what stands before it.
        at: where the model stands, from `prefill` or an earlier `read_on`; None at the start of a sequence.
        last: nothing will be read after it, so its state is not kept.
    """
    hidden, state = model.backbone(ids, None if at is None else at.state, final_state=not last)
    logits = model.lm_head(hidden)
    if at is None:
        log_p = torch.nn.functional.pad(base_log_probability(logits[:, :-1], ids[:, 1:]), (1, 0))
    else:
        speaking = torch.cat([at.logits.to(logits.dtype).unsqueeze(1), logits[:, :-1]], dim=1)
        log_p = base_log_probability(speaking, ids)
    return Reading(hidden, log_p, Continuation(logits[:, -1].float(), state))


def rows_of(at: Continuation, index: Tensor) -> Continuation:
    """The continuation whose row b is row ``index[b]`` of ``at``: one prefix, gone on from in several ways."""
    return Continuation(at.logits[index], [_rows(each, index) for each in at.state])


def _rows(state: Any, index: Tensor) -> Any:
    if isinstance(state, Tensor):
        return state[index]
    if isinstance(state, tuple):
        return type(state)(*(_rows(each, index) for each in state))  # the mixers' states are named tuples
    return state


@torch.no_grad()
def step(model: CausalLM, token: Tensor, state: Sequence[Any]) -> Continuation:
    """Reads one token more, token (B,)."""
    hidden, after = model.backbone(token.unsqueeze(1), state)
    return Continuation(model.lm_head(hidden[:, 0]).float(), after)


@torch.no_grad()
def stream(model: CausalLM, chunks: Iterable[Tensor]) -> Iterator[Tensor]:
    """Logits (B, l, padded vocabulary) of each chunk (B, l) of one long sequence, as the whole would give them."""
    state: list[Any] | None = None
    for chunk in chunks:
        hidden, state = model.backbone(chunk, state)
        yield model.lm_head(hidden)


@torch.no_grad()
def generate(
    model: CausalLM,
    prompt: Tensor,
    length: int,
    sampling: Sampling = EVERY_BASE,
    *,
    seed: int = 0,
    stop: Sequence[Sequence[int]] = (),
) -> Tensor:
    """Continues every row of a prompt.

    Args:
        model: in eval mode.
        prompt: ids (B, L), L ≥ 1, without padding.
        length: tokens to add at most.
        sampling: how tokens are drawn.
        seed: same seed, same prompt, same device: same tokens. Rows draw independently.
        stop: sequences of ids after any of which a row ends; it is padded from there.

    Returns:
        The added tokens, uint8-sized ids as int64, (B, at most length): fewer when every row has ended.

    Raises:
        ValueError: an empty prompt, or sampling options out of range.
    """
    if prompt.shape[1] < 1:
        raise ValueError("the prompt is empty: begin with [BOS] or a base")
    if sampling.temperature < 0 or not 0 < sampling.top_p <= 1 or (sampling.top_k is not None and sampling.top_k < 1):
        raise ValueError(f"{sampling}: temperature >= 0, 0 < top_p <= 1 and top_k >= 1 must hold")
    generator = torch.Generator(prompt.device).manual_seed(seed)
    longest = max((len(word) for word in stop), default=0)
    recent = prompt.new_full((prompt.shape[0], longest), alphabet.PAD).long()  # stops are looked for in what is added
    done = torch.zeros(prompt.shape[0], dtype=torch.bool, device=prompt.device)
    added: list[Tensor] = []
    at = prefill(model, prompt)
    for index in range(length):
        if index:
            at = step(model, added[-1], at.state)
        token = torch.where(done, alphabet.PAD, draw(at.logits, sampling, generator))
        added.append(token)
        if stop:
            recent = torch.cat([recent[:, 1:], token[:, None]], 1)
            for word in stop:
                done = done | (recent[:, longest - len(word) :] == token.new_tensor(list(word))).all(1)
            if bool(done.all()):
                break
    return torch.stack(added, 1) if added else prompt.new_empty(prompt.shape[0], 0).long()


def draw(logits: Tensor, sampling: Sampling, generator: torch.Generator) -> Tensor:
    """One token per row, (B,), from logits (B, V)."""
    allowed = torch.full_like(logits, -torch.inf)
    ids = list(sampling.allowed)
    allowed[:, ids] = logits[:, ids].float()
    if sampling.temperature == 0:
        return allowed.argmax(-1)
    ordered, order = (allowed / sampling.temperature).sort(dim=-1, descending=True, stable=True)
    probability = ordered.softmax(-1)
    before = probability.cumsum(-1) - probability
    drop = before >= sampling.top_p
    drop[:, 0] = False
    if sampling.top_k is not None:
        drop[:, sampling.top_k :] = True
    probability = probability.masked_fill(drop, 0)
    return order.gather(1, torch.multinomial(probability, 1, generator=generator)).squeeze(1)
