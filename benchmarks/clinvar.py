"""Variant classifiers on genes that they have not seen: by default BRCA2 and PALB2 train, TP53 validates, BRCA1 tests.

Beside each other: the pretrained model's log-likelihood ratio (zero-shot), a probe of its frozen features, low-rank
updates, full fine-tuning, training from scratch, and the consequence class alone, which all but decides the pooled
label; so figures are given within consequence classes too, where the class alone scores 0.5 by construction. The
learning rate is chosen on the validation genes with the first seed. With --jobs, runs go side by side. Results are
written after every run, so that a stopped benchmark goes on where it was; those of another model or of other settings
are refused. A rate whose run fails is not chosen. Needs no command-line parser, no htslib and no pyfaidx.

    python benchmarks/clinvar.py -r panel.fa.gz -i clinvar_panel.tsv.gz --model runs/g1 \
        --out benchmarks/results/clinvar.json --seeds 0 1 2 --lr 3e-4 1e-3 --set window=1024 epochs=3 \
        --jobs 8 --minutes 10
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

from made_with import keep_made_with, sha256
from series import Series, add_options, made_by, run_series
from settings import changed, settings
from side_by_side import Job

from genomamba.model.config import ModelConfig
from genomamba.model.folder import weights_fingerprint
from genomamba.pipelines import evaluate_variants, finetune_variants
from genomamba.pipelines.open_reference import open_reference

METHODS = ("probe", "lora", "full", "scratch")
NAMES = {"probe": "probe", "lora": "LoRA", "full": "full fine-tuning", "scratch": "from scratch"}
LEGEND = (
    "In a cell: the first seed's figure with its 95 % bootstrap interval where there are variants enough for one, "
    "then mean ± standard deviation over seeds (how many); zero-shot and the probe, a regression on frozen features, "
    "have nothing that a seed would change. Within a class, the class alone scores an AUROC of 0.5.\n"
)
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
    parser.add_argument("--lr", type=float, nargs="+", default=[1e-3], help="of all but the probe")
    add_options(parser)
    options = parser.parse_args()
    report = json.loads(options.out.read_text()) if options.out.exists() else {"genes": options.test, "methods": {}}
    # Its index is made once, so that the runs need not make it all at a time.
    shared = {"reference": open_reference(options.reference).fingerprint, "input": sha256(Path(options.input))}
    shared |= {"model": weights_fingerprint(options.model)}
    shared |= {"train": options.train, "valid": options.valid, "test": options.test}
    keep_made_with(report.setdefault("shared", {}), shared, "every method")
    with tempfile.TemporaryDirectory() as name:
        series = [
            MethodSeries(method, options, Path(name), report["methods"].setdefault(method, {}))
            for method in options.methods
        ]
        run_series(series, options, report, lambda: tables(report))
    print(tables(report))


class MethodSeries(Series):
    """The runs of one method: every learning rate with the first seed, then the best one with the others.

    Args:
        method: one of METHODS.
        options: of the command line.
        folder: for the models.
        found: what is known already; changed in place.

    Raises:
        SystemExit: what is known was made with something else.
    """

    CHOSEN, SETTING, SEED = "lr", "rate ", "seed "

    def __init__(self, method: str, options: argparse.Namespace, folder: Path, found: dict[str, Any]) -> None:
        self.method, self.options = method, options
        # Logistic regression on frozen features has nothing that a seed or a rate could change.
        seeds, rates = (given[:1] if method == "probe" else given for given in (options.seeds, options.lr))
        decisive = {"set": settings(options.set), "lr": rates}
        super().__init__(method, folder / method, seeds, {str(rate): rate for rate in rates}, found, decisive)

    def training(self, what: str, setting: float, seed: int) -> Job:
        cost = 2.0 if self.method == "probe" else 1.0  # it brings the zero-shot figures with it
        args = (self.method, self.options, seed, setting, self.folder / what)
        return Job(f"{self.method}, {what}", cost, train, args)

    def testing(self, what: str, made: dict[str, Any]) -> Job:
        return Job(f"{self.method}, {what}, test", float("inf"), test, (self.options, self.folder / what, made))

    def good(self, made: dict[str, Any]) -> float:
        return made["valid_auroc"]

    def close_grid(self) -> None:
        self.found["failed"] = self.failed


def train(method: str, options: argparse.Namespace, seed: int, rate: float, folder: Path) -> dict[str, Any]:
    """One run of `finetune variants`; what is worth keeping of its provenance."""
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
    )
    if code := finetune_variants.run(changed(config, settings(options.set) | {"optimizer.lr": rate})):
        raise RuntimeError(f"finetune variants ended with {code}")
    made = json.loads((folder / "provenance.json").read_text())
    return {"seed": seed, "valid_auroc": made["valid_auroc"], "parameters": made["parameters"]}


def test(options: argparse.Namespace, folder: Path, made: dict[str, Any]) -> dict[str, Any]:
    """`evaluate variants` on the test genes: figures with intervals, beside what is known of the training."""
    out = folder.parent / f"{folder.name}.json"  # a rate has a point in it
    config = evaluate_variants.Config(
        reference=options.reference,
        input=options.input,
        model=str(folder),
        output=str(out),
        device=options.device,
        batch_size=256,
    )
    with contextlib.redirect_stdout(sys.stderr):
        evaluate_variants.run(config)
    found = json.loads(out.read_text())
    return {**made, **{name: found[name] for name in KEPT}}


def tables(report: dict[str, Any]) -> str:
    """All variants together, then each consequence class that holds both labels, as Markdown."""
    runs = {method: done["seeds"] for method, done in report["methods"].items() if done.get("seeds")}
    if not runs:
        return ""
    first = next(iter(runs.values()))[0]
    counts = f"{first['variants']:,} variants of {', '.join(report['genes'])}, {first['positives']:,} pathogenic"
    genes = report["shared"]["made_with"]
    train, valid, test = (" and ".join(genes[part]) for part in ("train", "valid", "test"))
    parts = [
        f"{train} train, {valid} chose learning rate and epoch, {test} test. {LEGEND}",
        f"All classes together: {counts}\n",
        *_table(runs, first, lambda run: run["overall"], None),
    ]
    for place, row in enumerate(first["within"]):
        if row["AUROC"][0] is None:
            continue
        parts.append(f"\nWithin {row['stratum']}: {row['variants']:,} variants, {row['positives']:,} pathogenic\n")
        parts += _table(runs, first, lambda run, place=place: run["within"][place], place)  # type: ignore[misc]
    return "\n".join([*parts, *made_by(report)]) + "\n"


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
