"""Variant classifiers on genes that they have not seen: by default BRCA2 and PALB2 train, TP53 validates, BRCA1 tests.

Beside each other: the pretrained model's log-likelihood ratio (zero-shot), a probe of its frozen features, low-rank
updates, full fine-tuning, training from scratch, and the consequence class alone, which all but decides the pooled
label; so figures are given within consequence classes too, where the class alone scores 0.5 by construction. The
learning rate is chosen on the validation genes with the first seed. Results are written after every run, so that a
stopped benchmark goes on where it was. Needs no command-line parser, no htslib and no pyfaidx.

    python benchmarks/clinvar.py -r panel.fa.gz -i clinvar_panel.tsv.gz --model runs/g1 \
        --out benchmarks/results/clinvar.json --seeds 0 1 2 --lr 3e-4 1e-3 --set window=1024 epochs=3
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from settings import changed, settings

from genomamba.files import whole_file
from genomamba.model.config import ModelConfig
from genomamba.pipelines import evaluate_variants, finetune_variants

METHODS = ("probe", "lora", "full", "scratch")
NAMES = {"probe": "probe", "lora": "LoRA", "full": "full fine-tuning", "scratch": "from scratch"}
KEPT = ("variants", "positives", "overall", "zero_shot", "consequence_only", "within")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-r", "--reference", required=True, help="FASTA that the variants stand on")
    parser.add_argument("-i", "--input", required=True, help="labelled variants")
    parser.add_argument("--model", required=True, help="run folder of `pretrain`")
    parser.add_argument("--out", type=Path, required=True, help="JSON; tables go beside it, as .md")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS)
    parser.add_argument("--train", nargs="+", default=["BRCA2", "PALB2"])
    parser.add_argument("--valid", nargs="+", default=["TP53"])
    parser.add_argument("--test", nargs="+", default=["BRCA1"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--lr", type=float, nargs="+", default=[1e-3], help="of all but the probe")
    parser.add_argument(
        "--set", nargs="+", default=[], metavar="OPTION=VALUE", help="any other option, such as window=1024"
    )
    parser.add_argument("--minutes", type=float, help="of training per run")
    parser.add_argument("--device", choices=("auto", "cpu", "gpu"), default="auto")
    options = parser.parse_args()
    report = json.loads(options.out.read_text()) if options.out.exists() else {"genes": options.test, "methods": {}}
    for method in options.methods:
        done = report["methods"].setdefault(method, {})
        # logistic regression on frozen features has nothing that a seed could change
        seeds = options.seeds[:1] if method == "probe" else options.seeds
        with tempfile.TemporaryDirectory() as name:
            if "lr" not in done:
                done["tried"], done["lr"], done["seeds"] = choose(method, options, seeds[0], Path(name))
                write(report, options.out)
            for seed in seeds[len(done["seeds"]) :]:
                done["seeds"].append(one(method, options, seed, done["lr"], Path(name) / f"seed{seed}"))
                write(report, options.out)
    print(tables(report))


def choose(
    method: str, options: argparse.Namespace, seed: int, folder: Path
) -> tuple[dict[str, float], float, list[dict[str, Any]]]:
    """Validation AUROC by learning rate, the best of them, and its run's figures."""
    rates = options.lr[:1] if method == "probe" else options.lr
    runs = {rate: one(method, options, seed, rate, folder / f"lr{rate}") for rate in rates}
    best = max(runs, key=lambda rate: runs[rate]["valid_auroc"])
    return {str(rate): run["valid_auroc"] for rate, run in runs.items()}, best, [runs[best]]


def one(method: str, options: argparse.Namespace, seed: int, rate: float, folder: Path) -> dict[str, Any]:
    """`finetune variants`, then `evaluate variants`."""
    scratch = method == "scratch"
    architecture = json.loads((Path(options.model) / "config.json").read_text())["model"]
    config = finetune_variants.Config(
        reference=options.reference,
        input=options.input,
        output=str(folder),
        model=None if scratch else options.model,
        method="full" if scratch else method,  # type: ignore[arg-type]
        architecture=ModelConfig(**architecture) if scratch else ModelConfig(),
        train=options.train,
        valid=options.valid,
        test=options.test,
        seed=seed,
        device=options.device,
        max_minutes=options.minutes,
    )
    print(f"{NAMES[method]}, seed {seed}, learning rate {rate:g}", file=sys.stderr, flush=True)
    finetune_variants.run(changed(config, settings(options.set) | {"optimizer.lr": rate}))
    made = json.loads((folder / "provenance.json").read_text())
    out = folder.with_suffix(".json")
    evaluation = evaluate_variants.Config(
        reference=options.reference, input=options.input, model=str(folder), output=str(out), device=options.device
    )
    with contextlib.redirect_stdout(sys.stderr):
        evaluate_variants.run(evaluation)
    found = json.loads(out.read_text())
    figures = {name: found[name] for name in KEPT}
    return {"seed": seed, "valid_auroc": made["valid_auroc"], "parameters": made["parameters"], **figures}


def write(report: dict[str, Any], path: Path) -> None:
    with whole_file(path) as temporary:
        temporary.write_text(json.dumps(report, indent=1) + "\n")
    with whole_file(path.with_suffix(".md")) as temporary:
        temporary.write_text(tables(report))


def tables(report: dict[str, Any]) -> str:
    """All variants together, then each consequence class that holds both labels, as Markdown."""
    runs = {method: done["seeds"] for method, done in report["methods"].items() if done.get("seeds")}
    if not runs:
        return ""
    first = next(iter(runs.values()))[0]
    counts = f"{first['variants']:,} variants of {', '.join(report['genes'])}, {first['positives']:,} pathogenic"
    parts = [f"All classes together: {counts}\n", *_table(runs, first, lambda run: run["overall"], None)]
    for place, row in enumerate(first["within"]):
        if row["AUROC"][0] is None:
            continue
        parts.append(f"\nWithin {row['stratum']}: {row['variants']:,} variants, {row['positives']:,} pathogenic\n")
        parts += _table(runs, first, lambda run, place=place: run["within"][place], place)  # type: ignore[misc]
    return "\n".join(parts) + "\n"


def _table(
    runs: dict[str, list[dict[str, Any]]], first: dict[str, Any], figures: Callable[[Any], Any], place: int | None
) -> list[str]:
    rows = ["| | AUROC | AUPRC |", "|---|---:|---:|"]
    if place is None:
        alone = first["consequence_only"]
        rows.append(f"| consequence class alone | {_interval(alone['AUROC'])} | {_interval(alone['AUPRC'])} |")
    # The probe leaves the pretrained weights as they are, so its log-likelihood ratios are theirs.
    if "probe" in runs:
        own = runs["probe"][0]
        zero = (
            own["zero_shot"]
            if place is None
            else {k[10:]: v for k, v in own["within"][place].items() if k[:4] == "zero"}
        )
        rows.append(f"| zero-shot | {_interval(zero['AUROC'])} | {_interval(zero['AUPRC'])} |")
    for method, seeds in runs.items():
        cells = [_cell([figures(run)[name] for run in seeds]) for name in ("AUROC", "AUPRC")]
        rows.append(f"| {NAMES[method]} | {' | '.join(cells)} |")
    return rows


def _interval(figure: Sequence[float | None]) -> str:
    value, low, high = figure
    if value is None:
        return "NA"
    return f"{value:.3f}" if low is None else f"{value:.3f} [{low:.3f}, {high:.3f}]"


def _cell(figures: Sequence[Sequence[float | None]]) -> str:
    """The first seed's figure with its bootstrap interval; of several seeds, also mean and deviation."""
    values = [figure[0] for figure in figures if figure[0] is not None]
    if len(values) < 2:
        return _interval(figures[0])
    return f"{_interval(figures[0])}; {statistics.mean(values):.3f} ± {statistics.stdev(values):.3f} ({len(values)})"


if __name__ == "__main__":
    main()
