"""What bytes and seconds of a training step are proportional to, on a CPU and on a GPU.

With P parameters, n layers, E = d_inner, N states, and T tokens, those of a step's windows that are computed at once,
on a CPU:

    bytes   = a P + T (b n E + c n E N + d n + e d_model + f) + g
    seconds = a P + T (b n E + c n E² + d n E N + e d_model + f) + g n + h n L + i

On a GPU a Mamba block chooses by the shape what it keeps, what it computes again and in what pieces
(`kernels.mamba_block.budget`, `kernels.selective_scan.cut`). The terms ask the same rules and are bytes already where
these say how many; N is padded as there. The device and the host, which orders its launches, work side by side, so the
slower decides:

    bytes   = 16 P + a kept + max(8 T d_model + b working + c scratch, 14 T d_model) + d
    seconds = max(T (a n E² + b n E N + c n E N if the backward rebuilds the states + d m E + e d_model), f n + g m)

where m is the number of blocks that activation checkpointing computes again. A step that is replayed from CUDA graphs
does not wait for the host; with so few windows that they leave a GPU idle it takes longer than these terms know.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from genomamba.kernels.mamba_block import budget
from genomamba.kernels.selective_scan import cut as cutting
from genomamba.model.backbone import computed_together
from genomamba.model.block import ROOMY, THRIFTY
from genomamba.model.config import ModelConfig
from genomamba.tasks.config import Precision

Terms = dict[str, float]

# On a GPU: weights, their gradients and AdamW's two averages, fp32, which few points could tell from the other terms.
KNOWN_BYTES: Terms = {"P": 16, "passing": 1}


class Work(NamedTuple):
    """A step, or one of the equal parts that it is computed in."""

    model: ModelConfig
    parameters: int
    windows: int
    length: int  # of a window
    parts: int = 1

    @property
    def at_once(self) -> int:
        """Windows per part."""
        return self.windows // self.parts


class Method(NamedTuple):
    """What else decides on the cost."""

    precision: Precision
    activation_checkpointing: bool


class Gpu(NamedTuple):
    """What of a GPU a block's rules ask for."""

    memory_bytes: int
    multiprocessors: int


class TimeTerms(NamedTuple):
    once: Terms  # of a step
    each: Terms  # of each of its parts
    host: Terms  # of each part, beside ``each``


def is_covered(model: ModelConfig, gpu: Gpu | None) -> bool:
    """Whether the terms describe such a model."""
    plain = set(model.mixers) == {"mamba"} and model.is_causal and not model.d_mlp
    return plain and (gpu is None or model.rms_norm)  # otherwise the block is no single operator


def memory_terms(work: Work, method: Method, gpu: Gpu | None) -> list[Terms]:
    """At each moment of a step, computed in one part, that may be its peak; ``gpu`` is None on a CPU."""
    model, tokens = work.model, work.windows * work.length
    if gpu is None:
        terms: Terms = {
            "P": work.parameters,
            "T n E": tokens * model.n_layer * model.d_inner,
            "T n E N": tokens * model.n_layer * model.d_inner * model.d_state,
            "T n": tokens * model.n_layer,
            "T d": tokens * model.d_model,
            "T": tokens,
            "1": 1,
        }
        return [terms]
    block = block_bytes(work, method, gpu)
    always: Terms = {
        "P": work.parameters,
        "kept": kept_bytes(model.n_layer, block, method.activation_checkpointing),
        "1": 1,
    }
    # Of the block whose backward runs, with bf16 autocast. In the scan's: its norm and the gradients of its output, 2
    # bytes each, and of the stream. In the norm's: gradients of norm, output and stream, and of the stream before it in
    # fp32 and bf16.
    scan: Terms = {
        "passing": 8 * tokens * model.d_model + block.apart,
        "working": block.working,
        "scratch": block.scratch,
    }
    norm: Terms = {"passing": 14 * tokens * model.d_model, "working": 0, "scratch": 0}
    return [always | scan, always | norm]


def time_terms(work: Work, method: Method, gpu: Gpu | None) -> TimeTerms:
    """Of a step whose parts are each ``work``; ``gpu`` is None on a CPU."""
    model, tokens = work.model, work.windows * work.length
    through = tokens * model.n_layer * model.d_inner
    if gpu is None:
        each: Terms = {
            "T n E": through,
            "T n E²": through * model.d_inner,
            "T n E N": through * model.d_state,
            "T d": tokens * model.d_model,
            "T": tokens,
            "n": model.n_layer,
            "n L": model.n_layer * work.length,
        }
        return TimeTerms({"P": work.parameters, "1": 1}, each, {})
    block = block_bytes(work, method, gpu)
    again = model.n_layer - groups(model.n_layer)[-1] if method.activation_checkpointing else 0
    each = {
        "T n E²": through * model.d_inner,
        "T n E N": through * block.padded,
        "T n E N rebuilt": through * block.padded * block.rebuilds,
        "T m E": tokens * again * model.d_inner,
        "T d": tokens * model.d_model,
    }
    return TimeTerms({}, each, {"n": model.n_layer, "m": again})


class BlockBytes(NamedTuple):
    """Of one Mamba block on a GPU."""

    stream: int  # kept
    states: int  # kept, of the scan
    inputs: int  # kept of what its backward would compute again
    apart: int  # the gradient of dt, which is written over dt unless that is kept
    working: int  # of the projected input that is worked on at a time, which all else beside it is as long as
    scratch: int  # of the scan's backward
    rebuilds: bool  # whether that computes the states again
    padded: int  # states


def block_bytes(work: Work, method: Method, gpu: Gpu) -> BlockBytes:
    model, rows = work.model, work.windows
    inner = model.d_inner
    item = 4 if method.precision == "32-true" else 2
    at_most = THRIFTY if method.activation_checkpointing else ROOMY
    per_token = rows * 2 * inner * item
    length = min(work.length, budget.slab_tokens(per_token, at_most))
    in_slabs = length < work.length
    cut = cutting.plan(rows, length, inner, model.d_state)
    share = at_most, gpu.memory_bytes, model.n_layer
    fine = 0 if in_slabs else budget.fine_bytes(*share)
    walks = cutting.walks_back(cut, rows, inner, fine)
    if walks:
        shape, steps = cutting.fine_shape(cut, rows, inner), cut.span
    else:
        shape = cutting.entering_shape(cut, rows, inner)
        scratch = budget.scratch_bytes(gpu.memory_bytes, in_slabs=in_slabs)
        steps = cut.chunk * cutting.slab_chunks(cut, rows, inner, scratch, gpu.multiprocessors)
    projected = per_token * length
    # Normed, projected, convolved, its projection, dt.
    widths = model.d_model, 2 * inner, inner, model.dt_rank_resolved + 2 * model.d_state, inner
    small = 0 if in_slabs else budget.small_bytes(*share)
    sizes = [rows * length * width * item for width in widths]
    of_parts = rows * steps * cutting.lane_blocks(inner) * cutting.scratch_per_token(cut, rebuilds=not walks)
    return BlockBytes(
        stream=4 * rows * work.length * model.d_model,
        states=4 * math.prod(shape) * -(-work.length // length),
        inputs=sum(size for size in sizes if size <= small),
        apart=sizes[-1] if sizes[-1] <= small else 0,
        working=projected,
        scratch=of_parts + 4 * math.prod(cutting.coupling_shape(rows, steps, cut.padded, lanes=True)),
        rebuilds=not walks,
        padded=cut.padded,
    )


def kept_bytes(layers: int, block: BlockBytes, activation_checkpointing: bool) -> int:
    """When most of it is: as the backward begins, or begins with the last blocks that are computed again."""

    def of(blocks: int) -> int:
        return blocks * (block.stream + block.states) + (blocks - 1) * block.inputs

    if not activation_checkpointing:
        return of(layers)
    sizes = groups(layers)
    return max(before * block.stream + of(size) for before, size in enumerate(sizes))


def groups(layers: int) -> list[int]:
    """Of blocks between which activation checkpointing keeps the stream; the last is not computed again."""
    size = computed_together(layers)
    return [min(size, layers - first) for first in range(0, layers, size)]
