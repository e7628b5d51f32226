"""One token after another: draw it, read it; as a CUDA graph where the state has a fixed size.

All that changes from token to token lies in tensors that stay where they are, so that a turn can be captured once and
replayed; memory does not grow with what was drawn.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from genomamba.genome import alphabet
from genomamba.kernels.impl import resolve_impl
from genomamba.model.attention import AttentionState
from genomamba.model.backbone import CausalLM
from genomamba.model.mamba import MambaMixer
from genomamba.model.norm import RMSNorm
from genomamba.model.sampling import Sampling, barred, draw


class Decoder:
    """Draws tokens and lets a model read them.

    Attributes:
        logits: of the next token, (B, V), fp32.
        token: the last one drawn, (B,), int64.
        done: rows that have met a stop, (B,), bool; they draw [PAD].
    """

    def __init__(self, logits: Tensor, sampling: Sampling, seed: int, stop: Sequence[Sequence[int]]) -> None:
        batch, device = logits.shape[0], logits.device
        self.logits, self.sampling, self.seed = logits.clone(), sampling, seed
        self.generator = torch.Generator(device).manual_seed(seed)
        self.bars = barred(sampling, logits.shape[1], device)
        self.token = torch.zeros(batch, dtype=torch.long, device=device)
        self.done = torch.zeros(batch, dtype=torch.bool, device=device)
        self.stop = [torch.tensor(list(word), device=device) for word in stop]
        longest = max((len(word) for word in stop), default=0)
        self.recent = torch.full((batch, longest), alphabet.PAD, device=device)  # stops are looked for in what is drawn

    def turn(self) -> None:
        """Draws a token and reads it."""
        self.draw_token()
        if self.stop:
            self.recent.copy_(torch.cat([self.recent[:, 1:], self.token[:, None]], 1))
            for word in self.stop:
                self.done |= (self.recent[:, self.recent.shape[1] - len(word) :] == word).all(1)
        self.read_token()

    def draw_token(self) -> None:
        """From the logits into `token`."""
        drawn = draw(self.logits, self.sampling, self.generator, self.bars)
        self.token.copy_(torch.where(self.done, alphabet.PAD, drawn))

    def read_token(self) -> None:
        """From `token` into `logits`."""
        raise NotImplementedError

    def buffers(self) -> list[Tensor]:
        """All that a turn changes but the random numbers."""
        return [self.logits, self.token, self.done, self.recent]


class StepDecoder(Decoder):
    """For every causal model, through its own forward pass."""

    def __init__(
        self,
        model: CausalLM,
        logits: Tensor,
        state: Any,
        sampling: Sampling,
        seed: int,
        stop: Sequence[Sequence[int]],
    ) -> None:
        super().__init__(logits, sampling, seed, stop)
        self.model, self.fixed = model, fixed(state)
        self.state = copied(state) if self.fixed else state  # a view would hold on to the prompt

    def read_token(self) -> None:
        hidden, state = self.model.backbone(self.token[:, None], self.state)
        self.logits.copy_(self.model.lm_head(hidden[:, 0]))
        if self.fixed:
            for place, value in zip(leaves(self.state), leaves(state), strict=True):
                place.copy_(value)
        else:
            self.state = state

    def buffers(self) -> list[Tensor]:
        return [*super().buffers(), *leaves(self.state)]


class FusedDecoder(Decoder):
    """The same for models of Mamba layers alone, with a few kernels for each layer and one to draw."""

    def __init__(
        self,
        model: CausalLM,
        logits: Tensor,
        state: Any,
        sampling: Sampling,
        seed: int,
        stop: Sequence[Sequence[int]],
    ) -> None:
        from genomamba.kernels.mamba_step import triton as kernels

        super().__init__(logits, sampling, seed, stop)
        self.kernels = kernels
        self.embedding, self.head = model.backbone.embedding.weight, model.lm_head.weight
        self.norm: Any = model.backbone.norm_f
        self.layers = [_weights(layer) for layer in model.backbone.layers]
        self.carried = [kernels.LayerState(kernels.ring_of(s.conv), s.scan.float().clone()) for s in state]
        self.number = torch.zeros((), dtype=torch.long, device=logits.device)
        self.key = torch.full_like(self.number, seed)

    def draw_token(self) -> None:
        how = self.sampling
        self.kernels.draw_tokens(
            self.logits,
            self.bars,
            self.done,
            self.token,
            self.number,
            self.key,
            temperature=how.temperature,
            top_k=how.top_k,
            top_p=how.top_p,
            pad=alphabet.PAD,
        )

    def read_token(self) -> None:
        stream = self.embedding.index_select(0, self.token).float()
        for weights, state in zip(self.layers, self.carried, strict=True):
            self.kernels.mamba_layer(stream, weights, state, self.number)
        self.logits.copy_(self.kernels.head_logits(stream, self.norm.weight, self.norm.eps, self.head))
        self.number += 1

    def buffers(self) -> list[Tensor]:
        return [*super().buffers(), self.number, *(t for state in self.carried for t in state)]


def can_fuse(model: CausalLM, device: torch.device) -> bool:
    """Whether `FusedDecoder` has kernels for this model, and Triton is what it would run on this device."""
    from genomamba.kernels.mamba_step.triton import LARGEST_VOCABULARY

    def plain(layer: Any) -> bool:
        mixer = layer.mixer
        if type(mixer) is not MambaMixer or layer.mlp is not None or type(layer.norm) is not RMSNorm:
            return False
        linears = (mixer.in_proj, mixer.x_proj, mixer.dt_proj, mixer.out_proj)
        return (
            all(type(linear) is nn.Linear for linear in linears)  # an adapter's are not
            and mixer.in_proj.bias is None
            and mixer.out_proj.bias is None
            and resolve_impl(mixer.impl, device) == "triton"
        )

    return model.config.padded_vocab_size <= LARGEST_VOCABULARY and all(plain(layer) for layer in model.backbone.layers)


def blocks_of(decoder: Decoder, length: int, size: int, *, graph: bool) -> Iterator[Tensor]:
    """Up to `length` tokens in blocks of up to `size`, (B, ≤ size) each; ends early when every row has ended."""
    turn = captured(decoder) if graph else decoder.turn
    drawn = 0
    block = decoder.token.new_empty((size, decoder.token.shape[0]))
    while drawn < length:
        count = min(size, length - drawn)
        for index in range(count):
            turn()
            block[index].copy_(decoder.token)
        drawn += count
        ended = bool(decoder.done.all())
        if ended:  # perhaps before the block did
            count = int((block[:count] != alphabet.PAD).any(1).sum())
        yield block[:count].T.clone()
        if ended:
            return


def captured(decoder: Decoder) -> Callable[[], None]:
    """A decoder's turn as one CUDA graph."""
    kept = [buffer.clone() for buffer in decoder.buffers()]
    graph = torch.cuda.CUDAGraph()
    graph.register_generator_state(decoder.generator)
    stream = _side_stream(decoder.token.device)
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(2):  # kernels are compiled, libraries set up
            decoder.turn()
    torch.cuda.current_stream().wait_stream(stream)
    for buffer, value in zip(decoder.buffers(), kept, strict=True):
        buffer.copy_(value)
    decoder.generator.manual_seed(decoder.seed)
    with torch.cuda.graph(graph, stream=stream):
        decoder.turn()
    return graph.replay


@cache
def _side_stream(device: torch.device) -> torch.cuda.Stream:
    """One for all captures: cuBLAS keeps a workspace for each stream that it has ever seen."""
    return torch.cuda.Stream(device)


def fixed(state: Any) -> bool:
    """Whether a state has the same size at every token; the keys and values of attention have not."""
    if isinstance(state, (tuple, list)):
        return not isinstance(state, AttentionState) and all(map(fixed, state))
    return True


def leaves(state: Any) -> list[Tensor]:
    """The tensors of a state, in order."""
    if isinstance(state, (tuple, list)):
        return [leaf for part in state for leaf in leaves(part)]
    return [state] if isinstance(state, Tensor) else []


def copied(state: Any) -> Any:
    """The same state in tensors of its own."""
    if isinstance(state, Tensor):
        return state.clone()
    parts = [copied(part) for part in state]
    return type(state)(*parts) if isinstance(state, tuple) else parts


def _weights(layer: Any) -> Any:
    from genomamba.kernels.mamba_step.triton import LayerWeights, decay_of

    mixer = layer.mixer
    return LayerWeights(
        layer.norm.weight,
        layer.norm.eps,
        mixer.in_proj.weight.contiguous(),
        mixer.conv1d.weight.squeeze(1).contiguous(),
        mixer.conv1d.bias,
        mixer.x_proj.weight.contiguous(),
        mixer.dt_proj.weight.contiguous(),
        mixer.dt_proj.bias,
        decay_of(mixer.A_log).contiguous(),
        mixer.D.contiguous(),
        mixer.out_proj.weight.contiguous(),
    )
