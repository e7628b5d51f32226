"""`finetune sequences` over a folder of tasks: one TASK.csv.gz each, with the columns sequence, label and split.

For every task and start (a pretrained model, or from scratch) the settings of the grid are tried with the first seed,
dev chooses among them, and the chosen one is trained with the other seeds. Test is looked at once per seed, without
repetitions; what training shares with dev or test, on either strand, leaves training. With --jobs, runs go side by
side. Results are written after every run, so that a stopped benchmark goes on where it was; those of another model or
of other settings are refused. A setting whose run fails is not chosen. Where the folder has BASELINE_kmer_logreg.tsv
(columns task and mcc), its figures stand beside. Needs no command-line parser and no reader of genomes.

    python benchmarks/classification.py tasks/ --model runs/g1 --out benchmarks/results/classification.json \
        --tasks gue_tf_0 gue_mouse_0 --seeds 0 1 2 --lr 1e-3 3e-3 --strands both joined --set epochs=8 \
        --for '*.scratch' 'seeds=[0]' optimizer.lr=2e-3 --jobs 8 --minutes 10
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import dataclasses
import itertools
import json
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, get_args

from made_with import keep_made_with, sha256
from series import Series, add_options, made_by, run_series
from settings import changed, settings
from side_by_side import Job

from genomamba.model.config import ModelConfig, Pooling
from genomamba.model.folder import weights_fingerprint
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
    parser.add_argument("--lr", type=float, nargs="+", help="of the grid")
    parser.add_argument("--strands", nargs="+", choices=("both", "given", "joined"), help="of the grid")
    parser.add_argument("--pooling", nargs="+", choices=get_args(Pooling), help="of the grid")
    parser.add_argument(
        "--for",
        nargs="+",
        action="append",
        default=[],
        dest="special",
        metavar=("PATTERN", "OPTION=VALUE"),
        help="options, or seeds=[0,1], of the TASK.START that the pattern matches, such as 'gue_tf_*' or '*.scratch'",
    )
    add_options(parser)
    parser.add_argument("--keep", type=Path, help="folder to keep the models of the first seed in")
    options = parser.parse_args()
    starts = options.starts or (["pretrained", "scratch"] if options.model else ["scratch"])
    if "pretrained" in starts and not options.model:
        parser.error("--starts pretrained needs --model")
    files = {path.name.removesuffix(".csv.gz"): path for path in sorted(options.folder.glob("*.csv.gz"))}
    if unknown := [name for name in options.tasks or () if name not in files]:
        parser.error(f"there is no task {unknown[0]}; there is {', '.join(files)}")
    report = json.loads(options.out.read_text()) if options.out.exists() else {"results": {}}
    results = report["results"]
    if "pretrained" in starts:
        weights = {"model": weights_fingerprint(options.model)}
        keep_made_with(report.setdefault("pretrained", {}), weights, "a pretrained model")
    floor = read_floor(options.folder / FLOOR)
    with tempfile.TemporaryDirectory() as name:
        series = [
            TaskSeries(files[task], start, options, Path(name), results.setdefault(task, {}).setdefault(start, {}))
            for task, start in itertools.product(options.tasks or files, starts)
        ]
        run_series(series, options, report, lambda: table(report, floor))
    print(table(report, floor))


class TaskSeries(Series):
    """The runs of one task from one start: those of the grid, then those of the other seeds with what dev chose.

    Args:
        path: of the task.
        start: ``pretrained`` or ``scratch``.
        options: of the command line.
        folder: for the models.
        found: what is known already; changed in place.

    Raises:
        SystemExit: what is known was made with something else.
    """

    CHOSEN, SETTING, SEED = "chosen", "setting", "seed"

    def __init__(
        self, path: Path, start: str, options: argparse.Namespace, folder: Path, found: dict[str, Any]
    ) -> None:
        self.path, self.start, self.options = path, start, options
        name = f"{path.name.removesuffix('.csv.gz')}.{start}"
        self.own = settings(options.set)
        for pattern, *words in options.special:
            if fnmatch(name, pattern):
                self.own |= settings(words)
        seeds: list[int] = self.own.pop("seeds", options.seeds)
        options_of_grid = {
            "optimizer.lr": options.lr,
            "head.strands": options.strands,
            "head.pooling": options.pooling,
        }
        given = {option: values for option, values in options_of_grid.items() if values}
        grid = [dict(zip(given, values, strict=True)) for values in itertools.product(*given.values())]
        decisive = {"task": sha256(path), "set": self.own, "grid": grid}
        if start == "scratch":
            decisive["architecture"] = dataclasses.asdict(scratch_architecture(options.model))
        by_number = {str(number): setting for number, setting in enumerate(grid)}
        super().__init__(name, folder / name, seeds, by_number, found, decisive)

    def training(self, what: str, setting: dict[str, Any], seed: int) -> Job:
        own = self.own | setting
        cost = self.path.stat().st_size * own.get("epochs", 10)  # bases, nearly
        args = (self.path, self.folder / what, self.start, self.options, own, seed)
        return Job(f"{self.name}, {what}", cost, train, args)

    def testing(self, what: str, made: dict[str, Any]) -> Job:
        keep = self.options.keep if made["seed"] == self.seeds[0] else None
        args = (self.path, self.folder / what, self.options, made, None if keep is None else keep / self.name)
        return Job(f"{self.name}, {what}, test", float("inf"), test, args)

    def good(self, made: dict[str, Any]) -> float:
        return made["dev"]["valid_mcc"]

    def close_grid(self) -> None:
        tried = self.found.pop("tried")
        self.found["grid"] = [
            {**setting, **(tried[number]["dev"] if number in tried else {"failed": self.failed[number]})}
            for number, setting in self.grid.items()
        ]


def train(
    path: Path, folder: Path, start: str, options: argparse.Namespace, own: dict[str, Any], seed: int
) -> dict[str, Any]:
    """One run of `finetune sequences`; what is worth keeping of its provenance."""
    config = finetune_sequences.Config(
        input=str(path),
        output=str(folder),
        model=options.model if start == "pretrained" else None,
        leaks="drop",
        seed=seed,
        device=options.device,
        architecture=scratch_architecture(options.model) if start == "scratch" else ModelConfig(),
    )
    own = {name: value for name, value in own.items() if start == "scratch" or not name.startswith("architecture.")}
    began = time.perf_counter()
    if code := finetune_sequences.run(changed(config, own)):
        raise RuntimeError(f"finetune sequences ended with {code}")
    made = json.loads((folder / "provenance.json").read_text())
    return {
        "seed": seed,
        "settings": own,
        "dev": {name: made["dev"][name] for name in ("valid_mcc", "valid_loss", "step") if name in made["dev"]},
        "counts": made["counts"],
        "dropped": made["dropped"],
        "parameters": made["parameters"],
        "seconds": round(time.perf_counter() - began, 1),
    }


def test(
    path: Path, folder: Path, options: argparse.Namespace, made: dict[str, Any], keep: Path | None
) -> dict[str, Any]:
    """`evaluate sequences` on the test split: figures with intervals, beside what is known of the training."""
    out = folder.with_suffix(".json")
    config = evaluate_sequences.Config(
        input=str(path), model=str(folder), output=str(out), device=options.device, batch_size=256
    )
    with contextlib.redirect_stdout(sys.stderr):
        evaluate_sequences.run(config)
    if keep is not None:
        shutil.copytree(folder, keep, dirs_exist_ok=True)
    found = json.loads(out.read_text())
    return {**made, "test": found["overall"], "sequences": found["sequences"], "left_out": found["left_out"]}


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


def table(report: dict[str, Any], floor: dict[str, float]) -> str:
    """Test MCC × 100, mean over seeds and their standard deviation, as Markdown."""
    rows = [
        "| task | test sequences | left out of test | left out of training | k-mer floor | from scratch | pretrained "
        "| DNABERT-2 117M, published |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    results = {
        task: {start: found for start, found in starts.items() if found.get("seeds")}
        for task, starts in report["results"].items()
    }
    sizes = set()
    for task, starts in results.items():
        runs = [run for found in starts.values() for run in found["seeds"]]
        if not runs:
            continue
        sizes |= {run["parameters"] for run in runs}
        left_out = sum(runs[0]["left_out"].values())
        dropped = sum(count for why, count in runs[0]["dropped"].items() if "in train" in why or "in dev" in why)
        cells = [task, f"{runs[0]['sequences']:,}", f"{left_out:,}", f"{dropped:,}"]
        cells += [f"{100 * floor[task]:.1f}" if task in floor else ""]
        cells += [_cell(_mccs(starts, start)) for start in ("scratch", "pretrained")]
        rows.append("| " + " | ".join([*cells, str(PUBLISHED.get(task, ""))]) + " |")
    means = []
    for start in ("scratch", "pretrained"):
        every = [_mccs(results.get(task, {}), start) for task in PUBLISHED]
        means.append(f"{statistics.mean(statistics.mean(each) for each in every):.1f}" if all(every) else "")
    published = f"{statistics.mean(PUBLISHED.values()):.1f}"
    mean = f"mean of the {len(PUBLISHED)} with a published figure"
    rows.append(f"| {mean} | | | | | {means[0]} | {means[1]} | {published} |")
    rows += ["", compared(results, floor), "", NOTE.format(f"{max(sizes):,}" if sizes else "no")]
    return "\n".join([*rows, *made_by(report)]) + "\n"


def compared(results: dict[str, Any], floor: dict[str, float]) -> str:
    """Where the pretrained mean is above that from scratch, and which is below the floor, in words."""
    means = {
        (task, start): statistics.mean(values)
        for task, starts in results.items()
        for start in starts
        if (values := _mccs(starts, start))
    }
    both = [task for task in results if (task, "pretrained") in means and (task, "scratch") in means]
    lost = [task for task in both if means[task, "pretrained"] <= means[task, "scratch"]]
    words = []
    if both:
        words.append(f"pretrained above from scratch in {len(both) - len(lost)} of {len(both)} tasks" + _but(lost))
    for start in ("pretrained", "scratch"):
        judged = [task for task in floor if (task, start) in means]
        below = [task for task in judged if means[task, start] <= 100 * floor[task]]
        what = {"pretrained": "pretrained", "scratch": "from scratch"}[start]
        if judged:
            words.append(f"{what} above the k-mer floor in {len(judged) - len(below)} of {len(judged)}" + _but(below))
    text = "; ".join(words)
    return f"{text[:1].upper()}{text[1:]}." if text else ""


def _but(tasks: Sequence[str]) -> str:
    return f" (not {', '.join(tasks)})" if tasks else ""


NOTE = (
    "MCC × 100 on the test split, mean ± standard deviation over seeds (how many), models of at most {} parameters. "
    "Left out of test: repetitions of a test sequence, and those that stand there with several labels. Left out of "
    "training: what is in test or dev too, as it stands or as its reverse complement, and repetitions. Published "
    "figures, typed by hand from Zhou et al. 2024, are those of the whole test split. Dev chose the "
    "epoch, the threshold, and what a command gives several values of."
)


def _mccs(starts: dict[str, Any], start: str) -> list[float]:
    return [100 * seed["test"]["MCC"][0] for seed in starts.get(start, {}).get("seeds", ())]


def _cell(values: Sequence[float]) -> str:
    if not values:
        return ""
    spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.1f}{spread} ({len(values)})"


if __name__ == "__main__":
    main()
