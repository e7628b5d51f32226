"""What a layer can learn to remember: selective copying, induction heads, multi-query associative recall.

Every model has the same number of parameters, to within a few per cent, and the same training: fresh examples at every
step, AdamW, until its share of the time is over or it makes no errors.

    python benchmarks/selectivity.py --minutes 9 --out benchmarks/results/selectivity_h200.json
    python benchmarks/selectivity.py --draw benchmarks/results/selectivity_h200.json --picture docs/selectivity.png

The second command prints the table of docs/SELECTIVITY.md and draws its picture, on any machine.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from train_step import describe

from genomamba.model.backbone import CausalLM
from genomamba.model.config import ModelConfig


class Examples(NamedTuple):
    ids: Tensor  # (B, L)
    target: Tensor  # (B, L): what is to be said at each token; -100 where nothing is


def selective_copying(batch: int, length: int, items: int, device: torch.device, training: bool) -> Examples:
    """Letters strewn among noise are to be repeated in order at the end (Gu & Dao 2023, section 4.1.1).

    In training a row has any number of them up to `items`, and they begin anywhere, so that there is something to learn
    from the beginning; what is reported is of `items` in the whole length.
    """
    noise, slot, letters = 0, 1, 14
    draw = torch.rand(batch, length, device=device)
    if training:
        begin = (torch.rand(batch, 1, device=device) * (length - items + 1)).long()
        draw = torch.where(torch.arange(length, device=device) < begin, -1.0, draw)
    places = draw.topk(items, 1).indices.sort(1).values
    said = torch.randint(2, 2 + letters, (batch, items), device=device)
    count = torch.randint(1, items + 1, (batch, 1), device=device) if training else items
    there = torch.arange(items, device=device) < count
    ids = torch.full((batch, length + items), noise, device=device)
    ids[:, length:] = slot
    ids.scatter_(1, places, torch.where(there, said, noise))
    target = torch.full_like(ids, -100)
    target[:, length:] = torch.where(there, said, -100)
    return Examples(ids, target)


def induction_heads(batch: int, length: int, items: int, device: torch.device, training: bool) -> Examples:
    """What followed the marked token is to be said when it comes again, `items` times over (Olsson et al. 2022).

    After the first time the marked token's places are at random, and the answer is not shown.
    """
    mark, letters = 0, 15
    ids = torch.randint(1, 1 + letters, (batch, length), device=device)
    answer = torch.randint(1, 1 + letters, (batch, 1), device=device)
    first = torch.randint(0, length // 4, (batch, 1), device=device)
    ids.scatter_(1, first, mark).scatter_(1, first + 1, answer)
    later = length // 4 + 2 + torch.rand(batch, length - length // 4 - 2, device=device).topk(items, 1).indices
    ids.scatter_(1, later, mark)
    target = torch.full_like(ids, -100).scatter_(1, later, answer.expand(-1, items))
    return Examples(ids, target)


def associative_recall(batch: int, length: int, items: int, device: torch.device, training: bool) -> Examples:
    """`items` pairs of key and value, then each key somewhere, where its value is to be said (Arora et al. 2023)."""
    blank, keys, values = 0, 4 * items, 64
    key = 1 + torch.rand(batch, keys, device=device).topk(items, 1).indices
    value = torch.randint(1 + keys, 1 + keys + values, (batch, items), device=device)
    ids = torch.full((batch, length), blank, device=device)
    ids[:, : 2 * items] = torch.stack([key, value], 2).flatten(1)
    places = 2 * items + torch.rand(batch, length - 2 * items, device=device).topk(items, 1).indices
    ids.scatter_(1, places, key)
    return Examples(ids, torch.full_like(ids, -100).scatter_(1, places, value))


class Task(NamedTuple):
    make: Callable[..., Examples]
    length: int
    items: int
    batch: int
    share: float  # of the time, to be shared by its runs, in proportion to the others'
    vocabulary: Callable[[int], int]  # of the number of items


TASKS: dict[str, Task] = {
    "selective copying": Task(selective_copying, 256, 8, 64, 3.0, lambda items: 16),
    "induction heads": Task(induction_heads, 256, 8, 128, 1.0, lambda items: 16),
    "associative recall": Task(associative_recall, 256, 64, 128, 1.0, lambda items: 65 + 4 * items),
}
# Options, the field that is set so that parameters are equal in number, and the rate of learning.
MODELS: dict[str, tuple[dict[str, Any], str, float]] = {
    "S4D": ({"layers": "s4d"}, "d_model", 3e-3),
    "GRU": ({"layers": "gru"}, "d_model", 3e-3),
    "attention": ({"layers": "attention"}, "d_mlp", 1e-3),
    "Mamba": ({"layers": "mamba"}, "d_model", 3e-3),
    "Mamba-2": ({"layers": "mamba2", "d_state": 64}, "d_model", 3e-3),
    "hybrid": ({"layers": "mamba attention"}, "d_model", 3e-3),
}
WARM_UP, CHECKED_EVERY = 100, 100
FALL = 0.4  # the last part of a run, by steps or by time, in which the rate of learning falls


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="write the results here as JSON; what is there already is kept")
    parser.add_argument("--minutes", type=float, default=9.0, help="for all runs together")
    parser.add_argument("--steps", type=int, default=10_000, help="of one run at most")
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--width", type=int, default=64, help="d_model of Mamba; the others follow")
    parser.add_argument("--length", type=int, help="tokens before the answers")
    parser.add_argument("--items", type=int, help="things to remember")
    parser.add_argument("--batch", type=int)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--eager", action="store_true", help="on a GPU, no CUDA graph of the training step")
    parser.add_argument("--commit", help="what is measured, where there is no git to ask")
    parser.add_argument("--draw", type=Path, help="only print the table of these results")
    parser.add_argument("--picture", type=Path, help="with --draw: and write the picture here")
    options = parser.parse_args()
    if options.draw:
        draw(json.loads(options.draw.read_text()), options.picture)
        return
    device = torch.device(options.device)
    found: dict[str, Any] = {"runs": []}
    if options.out and options.out.exists():
        found = json.loads(options.out.read_text())
    if device.type == "cuda":
        found["machine"] = describe(options.commit)
    tasks = sorted(options.tasks, key=lambda task: TASKS[task].share)
    wanted = [(t, m, s) for s in options.seeds for t in tasks for m in options.models]
    end, left = time.monotonic() + 60 * options.minutes, [TASKS[task].share for task, _, _ in wanted]
    for number, (name, kind, seed) in enumerate(wanted):
        # What a run that has learned its task leaves of its time is for those after it.
        seconds = (end - time.monotonic()) * left[number] / sum(left[number:])
        task = TASKS[name]
        changed = {field: getattr(options, field) for field in ("length", "items", "batch")}
        task = task._replace(**{field: value for field, value in changed.items() if value})
        row = {"task": name, "model": kind, "seed": seed, "length": task.length, "items": task.items}
        row |= run(task, kind, seed, options.width, seconds, options.steps, device, options.eager)
        found["runs"] = [r for r in found["runs"] if (r["task"], r["model"], r["seed"]) != (name, kind, seed)] + [row]
        print(json.dumps(row), flush=True)
        if options.out:
            options.out.write_text(json.dumps(found, indent=1) + "\n")


def run(
    task: Task, kind: str, seed: int, width: int, seconds: float, steps: int, device: torch.device, eager: bool
) -> dict[str, Any]:
    """Trains one model and says what it has learned: the share of right answers to 2,048 fresh examples."""
    config = equal_config(kind, task, width)
    torch.manual_seed(seed)
    model = CausalLM(config).to(device)
    learning_rate = MODELS[kind][2]
    decayed = [p for p in model.parameters() if p.dim() > 1]
    kept = [p for p in model.parameters() if p.dim() < 2]
    rate = torch.zeros((), device=device) if device.type == "cuda" else 0.0
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": 0.01}, {"params": kept, "weight_decay": 0.0}],
        lr=rate,
        capturable=device.type == "cuda",
    )
    make = partial(task.make, task.batch, task.length, task.items, device)

    def step() -> None:
        examples = make(training=True)
        optimizer.zero_grad(set_to_none=True)
        F.cross_entropy(model(examples.ids).flatten(0, 1), examples.target.flatten()).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    # cuDNN's recurrence allocates as it goes.
    advance = step if eager or device.type != "cuda" or kind == "GRU" else captured(step)
    start, curve = time.monotonic(), []
    for number in range(1, steps + 1):
        progress = max(number / steps, (time.monotonic() - start) / seconds)
        for group in optimizer.param_groups:
            now = learning_rate * min(1.0, number / WARM_UP, max(0.05, (1 - progress) / FALL))
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(now)
            else:
                group["lr"] = now
        advance()
        if number % CHECKED_EVERY == 0:
            curve.append((number, accuracy(model, make, 256)))
            print(f"{kind}, seed {seed}: step {number}, {100 * curve[-1][1]:.1f} %", file=sys.stderr, flush=True)
            if curve[-1][1] > 0.9995 or time.monotonic() - start > seconds:
                break
    return {
        "parameters": sum(p.numel() for p in model.parameters()),
        "steps": number,
        "seconds": round(time.monotonic() - start, 1),
        "accuracy": round(accuracy(model, make, 2048), 4),
        "curve": [(at, round(value, 4)) for at, value in curve],
    }


def captured(step: Callable[[], None]) -> Callable[[], None]:
    """The same step as one CUDA graph; its random numbers go on from replay to replay."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):  # with a learning rate of zero
            step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay


@torch.no_grad()
def accuracy(model: CausalLM, make: Callable[[], Examples], count: int) -> float:
    """Share of right answers to at least `count` fresh examples."""
    right = asked = seen = 0
    model.eval()
    while seen < count:
        ids, target = make(training=False)
        there = target >= 0
        right += int((model(ids).argmax(-1) == target)[there].sum())
        asked += int(there.sum())
        seen += len(ids)
    model.train()
    return right / asked


def equal_config(kind: str, task: Task, width: int) -> ModelConfig:
    """The model of this kind with as many parameters as Mamba of this width."""
    vocabulary = task.vocabulary(task.items)
    options, free, _ = MODELS[kind]
    # Steps of up to 1: what is to be remembered are a few tokens, not a genome.
    base = ModelConfig(d_model=width, n_layer=2, vocab_size=vocabulary, headdim=width // 2, dt_min=0.01, dt_max=1.0)
    wanted = size(replace(base, layers="mamba"))
    base = replace(base, **options)
    if free == "d_mlp":
        candidates = [replace(base, d_mlp=d) for d in range(8, 4 * width, 4)]
    else:
        candidates = [replace(base, d_model=d, headdim=d // 2) for d in range(8, 2 * width, 4)]
    return min(candidates, key=lambda config: abs(size(config) - wanted))


def size(config: ModelConfig) -> int:
    return sum(p.numel() for p in CausalLM(config).parameters())


def draw(found: dict[str, Any], picture: Path | None) -> None:
    """Prints a table of mean and range over seeds, and plots accuracy against steps."""
    tasks = [t for t in TASKS if any(r["task"] == t for r in found["runs"])]
    models = [m for m in MODELS if any(r["model"] == m for r in found["runs"])]
    runs = {(t, m): [r for r in found["runs"] if (r["task"], r["model"]) == (t, m)] for t in tasks for m in models}
    print("| model | parameters | " + " | ".join(tasks) + " |")
    print("|---" * (2 + len(tasks)) + "|")
    for model in models:
        sizes = [f"{runs[task, model][0]['parameters'] / 1e3:.1f}" for task in tasks if runs[task, model]]
        cells = []
        for task in tasks:
            right = [100 * r["accuracy"] for r in runs[task, model]]
            cells.append(f"{sum(right) / len(right):.1f} ({min(right):.1f} to {max(right):.1f})" if right else "")
        print(f"| {model} | {' / '.join(sizes)} K | " + " | ".join(cells) + " |")
    if picture is None:
        return
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, len(tasks), figsize=(4 * len(tasks), 3.2), sharey=True, squeeze=False)
    for axis, task in zip(axes[0], tasks, strict=True):
        for number, model in enumerate(models):
            for index, r in enumerate(runs[task, model]):
                steps, right = zip(*r["curve"], strict=True)
                label = model if index == 0 else None
                axis.plot(steps, [100 * v for v in right], color=f"C{number}", lw=1, label=label)
        axis.set(title=task, xlabel="training steps", xscale="log", ylim=(0, 102))
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8)
    axes[0, 0].set_ylabel("right answers, %")
    figure.tight_layout()
    figure.savefig(picture, dpi=120)


if __name__ == "__main__":
    main()
