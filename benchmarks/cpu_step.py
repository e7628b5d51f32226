"""A training step on a CPU: this model beside transformers' MambaForCausalLM on the path without kernels.

Forward and backward of the causal language-model loss, same widths, same weights, same tokens. Each model
runs in a process of its own, in turns; a short step compiles and warms up before anything is measured. The
fastest step counts, since whatever else runs on the machine can only add to it. Memory is what a step adds
to the process at its peak. Beside the times stands a floor for this model on this machine: its
multiplications at the speed of a large matrix product measured in the same run, or its bytes at that of a
large copy, whichever takes longer. Nothing is asserted.

    python benchmarks/cpu_step.py --out benchmarks/results/cpu_step.json
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

D_MODEL, LAYERS, STATES, VOCABULARY, TAPS = 128, 4, 16, 16, 4
MODELS = ("genomamba", "transformers")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, nargs="+", default=[1], help="sequences in a step")
    parser.add_argument("--length", type=int, default=1024, help="tokens in a sequence")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--steps", type=int, default=3, help="timed steps per turn")
    parser.add_argument("--turns", type=int, default=2, help="times that each model has its turn")
    parser.add_argument("--out", type=Path, help="where to write the numbers as JSON")
    parser.add_argument("--measure", choices=MODELS, help=argparse.SUPPRESS)
    parser.add_argument("--weights", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        torch.set_num_threads(options.threads[0])
        print(json.dumps(measure(options.measure, options.weights, options.batch[0], options.length, options.steps)))
        return
    report = compare(options)
    print_table(report)
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(report, indent=2) + "\n")


def compare(options: argparse.Namespace) -> dict[str, Any]:
    cases = []
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / "weights.pt"
        torch.manual_seed(0)
        torch.save(our_model().state_dict(), weights)
        for threads, batch in itertools.product(options.threads, options.batch):
            torch.set_num_threads(threads)
            speeds = [machine_speeds()]
            turns: dict[str, list[dict[str, Any]]] = {name: [] for name in MODELS}
            for _ in range(options.turns):
                for name in MODELS:
                    turns[name].append(in_own_process(name, weights, batch, threads, options))
                speeds.append(machine_speeds())
            best = {key: max(speed[key] for speed in speeds) for key in speeds[0]}
            cases.append({"batch": batch, "threads": threads, **best, **summary(batch * options.length, turns, best)})
    machine = {"cpu": cpu_name(), "torch": torch.__version__}
    widths = {"d_model": D_MODEL, "n_layer": LAYERS, "d_state": STATES, "vocabulary": VOCABULARY}
    return {"machine": machine, "model": widths, "length": options.length, "cases": cases}


def in_own_process(name: str, weights: Path, batch: int, threads: int, options: argparse.Namespace) -> dict[str, Any]:
    command = [sys.executable, __file__, "--measure", name, "--weights", str(weights), "--batch", str(batch)]
    command += ["--length", str(options.length), "--threads", str(threads), "--steps", str(options.steps)]
    quiet = os.environ | {"TRANSFORMERS_VERBOSITY": "error"}  # else it warns that this path is slow
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=quiet)
    return json.loads(done.stdout.splitlines()[-1])


def summary(tokens: int, turns: dict[str, list[dict[str, Any]]], speeds: dict[str, float]) -> dict[str, Any]:
    case: dict[str, Any] = {}
    for name, measured in turns.items():
        seconds = [s for turn in measured for s in turn["seconds"]]
        case[name] = {
            "fastest_step": min(seconds),
            "median_step": statistics.median(seconds),
            "tokens_per_second": tokens / min(seconds),
            "peak_memory_bytes": max(turn["peak_memory_bytes"] for turn in measured),
            "loss": measured[0]["loss"],
        }
        case[name].update({k: measured[0][k] for k in ("transformers",) if k in measured[0]})
    ours, theirs = (case[name] for name in MODELS)
    case["times_faster"] = theirs["fastest_step"] / ours["fastest_step"]
    case["times_less_memory"] = theirs["peak_memory_bytes"] / ours["peak_memory_bytes"]
    case["floor_seconds"] = floor_seconds(tokens, speeds)
    return case


# --- one model in this process ---


def measure(name: str, weights: Path, batch: int, length: int, steps: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if name == "genomamba":
        model = our_model()
        model.load_state_dict(torch.load(weights, weights_only=True))
        logits: Callable[[Tensor], Tensor] = model
    else:
        model, found["transformers"] = their_model(torch.load(weights, weights_only=True))
        logits = lambda ids: model(input_ids=ids, use_cache=False).logits  # noqa: E731

    def step(ids: Tensor) -> float:
        model.zero_grad(set_to_none=True)
        loss = F.cross_entropy(logits(ids)[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
        loss.backward()
        return loss.item()

    torch.manual_seed(1)
    ids = torch.randint(0, VOCABULARY, (batch, length))
    step(ids[:1, :16])
    step(ids[:1, :16])
    model.zero_grad(set_to_none=True)
    found["peak_memory_bytes"] = peak_memory(lambda: step(ids))
    found["seconds"] = []
    for _ in range(steps):
        start = time.perf_counter()
        found["loss"] = step(ids)
        found["seconds"].append(time.perf_counter() - start)
    return found


def our_model() -> nn.Module:
    from genomamba.model.backbone import CausalLM
    from genomamba.model.config import ModelConfig

    return CausalLM(ModelConfig(d_model=D_MODEL, n_layer=LAYERS, d_state=STATES, d_conv=TAPS, vocab_size=VOCABULARY))


def their_model(weights: dict[str, Tensor]) -> tuple[nn.Module, str]:
    """transformers' model with our weights, and its version."""
    import transformers

    config = transformers.MambaConfig(
        vocab_size=VOCABULARY, hidden_size=D_MODEL, num_hidden_layers=LAYERS, state_size=STATES, conv_kernel=TAPS,
        use_mambapy=False, use_cache=False, tie_word_embeddings=True,
    )  # fmt: skip
    model = transformers.MambaForCausalLM(config)
    renamed = {name.replace("backbone.embedding.", "backbone.embeddings."): v for name, v in weights.items()}
    model.load_state_dict(renamed)
    return model.train(), transformers.__version__


def peak_memory(work: Callable[[], object]) -> int:
    """Bytes that ``work`` adds to this process at most. Linux keeps a high-water mark that can be set back."""
    status, reset = Path("/proc/self/status"), Path("/proc/self/clear_refs")

    def read(field: str) -> int:
        found = re.search(rf"^{field}:\s+(\d+) kB", status.read_text(), re.MULTILINE)
        assert found is not None
        return int(found[1]) * 1024

    reset.write_text("5")
    before = read("VmRSS")
    work()
    return read("VmHWM") - before


# --- the floor ---


def machine_speeds() -> dict[str, float]:
    """Operations a second of a large fp32 matrix product, bytes a second of a large copy, on these threads."""
    n = 1024
    a, b = torch.randn(n, n), torch.randn(n, n)
    source = torch.randn(1 << 24)
    target = torch.empty_like(source)
    return {
        "flops": 2 * n**3 / fastest(lambda: torch.mm(a, b)),
        "bytes_per_second": 2 * source.nbytes / fastest(lambda: target.copy_(source)),
    }


def fastest(work: Callable[[], object], times: int = 15) -> float:
    seconds = []
    for _ in range(times):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def floor_seconds(tokens: int, speeds: dict[str, float]) -> float:
    """What the step's arithmetic or traffic alone would take.

    Arithmetic: two operations per weight of a matrix product and token, three times (forward, and the
    gradients of both factors); per channel and state of the scan 22 forward (an exponential is 14) and 38
    backward. Traffic: what the backward needs is written and read once, gradients of it likewise.
    """
    inner, rank = 2 * D_MODEL, D_MODEL // 16
    products = D_MODEL * 2 * inner + inner * (rank + 2 * STATES) + rank * inner + inner * D_MODEL
    operations = tokens * (LAYERS * (6 * products + 60 * inner * STATES) + 6 * D_MODEL * VOCABULARY)
    kept = 2 * D_MODEL + 5 * inner + rank + 2 * STATES  # stream, normed; u, z, convolved, dt, y; projections
    traffic = 4 * 4 * tokens * LAYERS * kept
    return max(operations / speeds["flops"], traffic / speeds["bytes_per_second"])


# --- the report ---


def cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*:\s*(.+)", info.read_text()) if info.exists() else None
    return f"{found[1] if found else platform.processor()}, {os.cpu_count()} cores"


def print_table(report: dict[str, Any]) -> None:
    print(report["machine"]["cpu"])
    print(f"d_model {D_MODEL}, {LAYERS} layers, {STATES} states, {report['length']} tokens, forward and backward, fp32")
    for case in report["cases"]:
        print(
            f"\nbatch {case['batch']}, {case['threads']} threads: "
            f"matrix product {case['flops'] / 1e9:.0f} GFLOP/s, copy {case['bytes_per_second'] / 1e9:.0f} GB/s"
        )
        print(f"{'':<13} {'ms/step':>9} {'tokens/s':>9} {'peak MB':>8} {'loss':>8}")
        for name in MODELS:
            m = case[name]
            print(
                f"{name:<13} {m['fastest_step'] * 1e3:>9.1f} {m['tokens_per_second']:>9.0f} "
                f"{m['peak_memory_bytes'] / 1e6:>8.0f} {m['loss']:>8.4f}"
            )
        print(
            f"{'floor':<13} {case['floor_seconds'] * 1e3:>9.1f}   "
            f"{case['times_faster']:.1f} times faster, {case['times_less_memory']:.1f} times less memory"
        )


if __name__ == "__main__":
    main()
