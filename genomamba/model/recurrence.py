"""A causal model run as a recurrence: prefill, read on, step, generate, stream; memory does not grow with what is read.

Nothing here is differentiable: a graph would hold on to every token.

(Attention without a window is the exception: its state holds every key and value.)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from genomamba.model.backbone import Backbone, CausalLM, base_log_probability
from genomamba.model.decoding import FusedDecoder, StepDecoder, blocks_of, can_fuse, fixed
from genomamba.model.sampling import EVERY_BASE, Sampling, check


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
    blocks = list(generate_blocks(model, prompt, length, sampling, seed=seed, stop=stop))
    return torch.cat(blocks, 1) if blocks else prompt.new_empty(prompt.shape[0], 0).long()


@torch.no_grad()
def generate_blocks(
    model: CausalLM,
    prompt: Tensor,
    length: int,
    sampling: Sampling = EVERY_BASE,
    *,
    seed: int = 0,
    stop: Sequence[Sequence[int]] = (),
) -> Iterator[Tensor]:
    """The same tokens as `generate`, (B, l) at a time, as they are drawn; memory does not grow with their number.

    On an NVIDIA GPU a token is one CUDA graph, unless the model has attention layers, whose state grows.
    """
    if prompt.shape[1] < 1:
        raise ValueError("the prompt is empty: begin with [BOS] or a base")
    check(sampling)
    at = prefill(model, prompt)
    on_gpu = prompt.device.type == "cuda"
    make = FusedDecoder if on_gpu and can_fuse(model, prompt.device) else StepDecoder
    graph = on_gpu and fixed(at.state)
    decoder = make(model, at.logits, at.state, sampling, seed, stop)
    del at
    yield from blocks_of(decoder, length, 16 if stop else 256, graph=graph)
