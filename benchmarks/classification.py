"""`finetune sequences` over a folder of tasks: one TASK.csv.gz each, with the columns sequence, label and split.

For every task and start (a pretrained model, or from scratch) the settings of the grid are tried with the first seed,
dev chooses among them, and the chosen one is trained with the other seeds. Test is looked at once per seed, without
repetitions; what training shares with dev or test, on either strand, leaves training. Results are written after every
task, so that a stopped run goes on where it was. Where the folder has BASELINE_kmer_logreg.tsv (columns task and mcc),
its figures stand beside. Needs no command-line parser and no reader of genomes.

    python benchmarks/classification.py tasks/ --model runs/g1 --out benchmarks/results/classification.json \
        --tasks gue_tf_0 gue_mouse_0 --seeds 0 1 2 --lr 1e-3 3e-3 --strands both joined --minutes 4
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import itertools
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from settings import changed, settings

from genomamba.files import whole_file
from genomamba.model.config import ModelConfig
from genomamba.pipelines import evaluate_sequences, finetune_sequences

FLOOR = "BASELINE_kmer_logreg.tsv"
# The tasks of the Genome Understanding Evaluation whose whole training split is public, and the test MCC that
# DNABERT-2 117M reaches there as published (Zhou et al. 2024).
PUBLISHED = {
    "gue_tf_0": 72.0, "gue_tf_1": 76.1, "gue_tf_2": 66.5, "gue_mouse_0": 56.8, "gue_mouse_2": 79.3,
    "gue_prom_prom_core_all": 69.4, "gue_prom_prom_core_notata": 68.0, "gue_prom_prom_300_tata": 71.6,
}  # fmt: skip
SCRATCH = ModelConfig(d_model=128, n_layer=4, bidirectional=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="of the tasks")
    parser.add_argument("--out", type=Path, required=True, help="JSON; a table goes beside it, as .md")
    parser.add_argument("--tasks", nargs="+", help="names; all when not given")
    parser.add_argument("--model", help="run folder of `pretrain`")
    parser.add_argument("--starts", nargs="+", choices=("pretrained", "scratch"), help="both, where there is a model")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--lr", type=float, nargs="+", default=[1e-3], help="of the grid")
    parser.add_argument(
        "--strands", nargs="+", default=["both"], choices=("both", "given", "joined"), help="of the grid"
    )
    parser.add_argument(
        "--set", nargs="+", default=[], metavar="OPTION=VALUE", help="any other option, such as epochs=20"
    )
    parser.add_argument("--minutes", type=float, help="of training per task and start, shared among its runs")
    parser.add_argument("--device", choices=("auto", "cpu", "gpu"), default="auto")
    parser.add_argument("--keep", type=Path, help="folder to keep the models of the first seed in")
    options = parser.parse_args()
    starts = options.starts or (["pretrained", "scratch"] if options.model else ["scratch"])
    if "pretrained" in starts and not options.model:
        parser.error("--starts pretrained needs --model")
    files = {path.name.removesuffix(".csv.gz"): path for path in sorted(options.folder.glob("*.csv.gz"))}
    if unknown := [name for name in options.tasks or () if name not in files]:
        parser.error(f"there is no task {unknown[0]}; there is {', '.join(files)}")
    report = json.loads(options.out.read_text()) if options.out.exists() else {"results": {}}
    floor = read_floor(options.folder / FLOOR)
    for task, start in itertools.product(options.tasks or files, starts):
        done = report["results"].setdefault(task, {})
        if start in done:
            continue
        print(f"{task}, {start}", file=sys.stderr, flush=True)
        done[start] = measure(files[task], start, options)
        with whole_file(options.out) as path:
            path.write_text(json.dumps(report, indent=1) + "\n")
        with whole_file(options.out.with_suffix(".md")) as path:
            path.write_text(table(report["results"], floor))
    print(table(report["results"], floor))


def measure(path: Path, start: str, options: argparse.Namespace) -> dict[str, Any]:
    """Chooses a setting on dev, then measures it with every seed on test."""
    grid = [{"optimizer.lr": lr, "head.strands": strands} for lr in options.lr for strands in options.strands]
    runs = len(grid) + len(options.seeds) - 1
    minutes = None if options.minutes is None else options.minutes / runs
    first, others = options.seeds[0], options.seeds[1:]
    with tempfile.TemporaryDirectory() as name:
        folders = [Path(name) / f"setting{number}" for number in range(len(grid))]
        tried = [
            train(path, folder, start, options, setting, first, minutes)
            for folder, setting in zip(folders, grid, strict=True)
        ]
        best = max(range(len(grid)), key=lambda number: tried[number]["dev"]["valid_mcc"])
        seeds = [test(path, folders[best], options) | {"seed": first, **tried[best]}]
        if options.keep:
            kept = options.keep / f"{path.name.removesuffix('.csv.gz')}.{start}"
            kept.parent.mkdir(parents=True, exist_ok=True)
            folders[best].rename(kept)
        for seed in others:
            folder = Path(name) / f"seed{seed}"
            made = train(path, folder, start, options, grid[best], seed, minutes)
            seeds.append(test(path, folder, options) | {"seed": seed, **made})
    return {
        "chosen": grid[best],
        "grid": [{**setting, **made["dev"]} for setting, made in zip(grid, tried, strict=True)],
        "seeds": seeds,
    }


def train(
    path: Path, folder: Path, start: str, options: argparse.Namespace, setting: dict[str, Any], seed: int, minutes: Any
) -> dict[str, Any]:
    """One run of `finetune sequences`; what is worth keeping of its provenance."""
    config = finetune_sequences.Config(
        input=str(path),
        output=str(folder),
        model=options.model if start == "pretrained" else None,
        leaks="drop",
        seed=seed,
        device=options.device,
        max_minutes=minutes,
        architecture=scratch_architecture(options.model) if start == "scratch" else ModelConfig(),
    )
    given = settings(options.set)
    own = {name: value for name, value in given.items() if start == "scratch" or not name.startswith("architecture.")}
    began = time.perf_counter()
    if code := finetune_sequences.run(changed(config, own | setting)):
        raise SystemExit(code)
    made = json.loads((folder / "provenance.json").read_text())
    return {
        "dev": {name: made["dev"][name] for name in ("valid_mcc", "valid_loss", "step") if name in made["dev"]},
        "counts": made["counts"],
        "dropped": made["dropped"],
        "parameters": made["parameters"],
        "seconds": round(time.perf_counter() - began, 1),
    }


def test(path: Path, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """`evaluate sequences` on the test split: figures with intervals."""
    out = folder.with_suffix(".json")
    config = evaluate_sequences.Config(
        input=str(path), model=str(folder), output=str(out), device=options.device, batch_size=256
    )
    with contextlib.redirect_stdout(sys.stderr):
        evaluate_sequences.run(config)
    found = json.loads(out.read_text())
    return {"test": found["overall"], "sequences": found["sequences"], "left_out": found["left_out"]}


def scratch_architecture(model: str | None) -> ModelConfig:
    """That of the pretrained model, where there is one, so that the two starts differ in nothing else."""
    if model is None:
        return SCRATCH
    return ModelConfig(**json.loads((Path(model) / "config.json").read_text())["model"])


def read_floor(path: Path) -> dict[str, float]:
    if not path.exists():
        return {}
    with path.open(newline="") as stream:
        return {row["task"]: float(row["mcc"]) for row in csv.DictReader(stream, delimiter="\t")}


def table(results: dict[str, Any], floor: dict[str, float]) -> str:
    """Test MCC × 100, mean over seeds and their standard deviation, as Markdown."""
    rows = [
        "| task | test sequences | k-mer floor | from scratch | pretrained | DNABERT-2 117M, published |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for task, starts in results.items():
        size = next((f"{start['seeds'][0]['sequences']:,}" for start in starts.values()), "")
        cells = [task, size, f"{100 * floor[task]:.1f}" if task in floor else ""]
        cells += [_cell(_mccs(starts, start)) for start in ("scratch", "pretrained")]
        rows.append("| " + " | ".join([*cells, str(PUBLISHED.get(task, ""))]) + " |")
    means = []
    for start in ("scratch", "pretrained"):
        every = [_mccs(results.get(task, {}), start) for task in PUBLISHED]
        means.append(f"{statistics.mean(statistics.mean(each) for each in every):.1f}" if all(every) else "")
    published = f"{statistics.mean(PUBLISHED.values()):.1f}"
    rows.append(f"| mean of the {len(PUBLISHED)} with a published figure | | | {means[0]} | {means[1]} | {published} |")
    return "\n".join(rows) + "\n"


def _mccs(starts: dict[str, Any], start: str) -> list[float]:
    return [100 * seed["test"]["MCC"][0] for seed in starts.get(start, {}).get("seeds", ())]


def _cell(values: Sequence[float]) -> str:
    if not values:
        return ""
    spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.1f}{spread} ({len(values)})"


if __name__ == "__main__":
    main()
