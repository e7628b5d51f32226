"""docs/results.md and its picture. Every figure of ours is one that a command left behind.

Others' figures are typed by hand: those of quality_peers.json, which names each one's source, and the published ones
that benchmarks/classification.py puts in its table. The page says so too.

First what is worth keeping of pretraining runs and of `genomamba evaluate regions` goes into JSON. A region counts by
the name that its BED line has, otherwise its contig's; an evaluation may be given in several tables.

    python benchmarks/results_page.py collect --run fast=runs/fast --evaluation "fast/in windows=fast.tsv" \
        --evaluation "fast/streamed=fast_streamed.tsv" --out benchmarks/results/quality_h200.json
    python benchmarks/results_page.py page

The page also takes in the tables that benchmarks/classification.py and benchmarks/clinvar.py wrote to
benchmarks/results/classification*.md and clinvar*.md.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import hashlib
import json
import math
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml
from safetensors import safe_open

from genomamba.files import whole_file
from genomamba.pipelines import pretrain
from genomamba.pipelines.context_baseline import TRAINING

HERE = Path(__file__).parent
RESULTS, DOCS = HERE / "results", HERE.parent / "docs"
PEERS = "quality_peers.json"
# Of a run's options, those that have no say in what it learns.
PLACES = {"output", "regions", "valid_bed", "test_bed", "force", "resume", "workers", "device", "also_log"}
PLACES |= {"keep", "checkpoint_every", "step_log"}
CONTEXT = re.compile(r"order_(\d+)_(frozen|adaptive)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True, dest="command")
    collecting = commands.add_parser("collect", help="run folders and tables to JSON")
    collecting.add_argument("--run", nargs="+", action="extend", default=[], metavar="NAME=FOLDER")
    collecting.add_argument("--evaluation", nargs="+", action="extend", default=[], metavar="NAME/HOW=TSV")
    collecting.add_argument("--note", nargs="+", action="extend", default=[], metavar="NAME=WHAT TO KNOW OF IT")
    collecting.add_argument("--out", type=Path, required=True)
    collecting.add_argument("--device", help="that the runs trained on")
    collecting.add_argument("--commit", help="that they ran")
    page = commands.add_parser("page", help="JSON to the page and its picture")
    page.add_argument("--results", type=Path, default=RESULTS, help="folder of the JSON")
    page.add_argument("--out", type=Path, default=DOCS / "results.md", help="the picture goes beside it")
    options = parser.parse_args()
    if options.command == "collect":
        found = collect(pairs(options.run), pairs(options.evaluation))
        notes = dict(word.split("=", 1) for word in options.note)
        found = [run | ({"note": notes[run["name"]]} if run["name"] in notes else {}) for run in found]
        with whole_file(options.out) as path:
            about = {"device": options.device, "commit": options.commit}
            path.write_text(json.dumps(about | {"runs": found}, indent=1, ensure_ascii=False) + "\n")
    else:
        write_page(options.results, options.out)


def pairs(words: Iterable[str]) -> list[tuple[str, Path]]:
    return [(name, Path(path)) for name, _, path in (word.partition("=") for word in words)]


def collect(runs: Sequence[tuple[str, Path]], evaluations: Sequence[tuple[str, Path]]) -> list[dict[str, Any]]:
    """What the page shows of each run."""
    found = {name: of_run(folder) | {"name": name, "evaluations": {}} for name, folder in runs}
    for name, path in evaluations:
        run, _, how = name.partition("/")
        if run not in found:
            raise SystemExit(f"--evaluation {name}: there is no --run {run}")
        table = found[run]["evaluations"].setdefault(how or "evaluated", {})
        for region, figures in of_table(path).items():
            table[region] = figures
    return list(found.values())


def of_run(folder: Path) -> dict[str, Any]:
    """Configuration, size, time and curve of a run of `pretrain`."""
    configuration = yaml.safe_load((folder / "run.yaml").read_text())
    made = json.loads((folder / "provenance.json").read_text())
    trained_on = made["reference"]["fingerprint"] + "\n" + (folder / TRAINING).read_text()
    with safe_open(folder / "model.safetensors", "numpy") as weights:
        parameters = sum(math.prod(weights.get_slice(name).get_shape()) for name in weights.keys())  # noqa: SIM118
    with (folder / "metrics.csv").open(newline="") as stream:
        logged = list(csv.DictReader(stream))
    validations = [row for row in logged if row.get("valid_bits_per_base")]
    with (folder / "validation.tsv").open(newline="") as stream:
        rows = [row for row in csv.DictReader(stream, delimiter="\t") if row["stratum"] == "all"]
    return {
        "configuration": {name: value for name, value in configuration.items() if name not in PLACES}
        | {"reference": [Path(path).name for path in configuration["reference"]]},
        "versions": made["versions"],
        "parameters": parameters,
        "steps": made["steps"],
        "trained_on_bases": made["trained_on_bases"],
        "training_regions": hashlib.sha256(trained_on.encode()).hexdigest(),
        "train_seconds": max(float(row["train_seconds"]) for row in logged if row["train_seconds"]),
        "curve": [[float(row["train_seconds"]), float(row["valid_bits_per_base"])] for row in validations],
        "valid": {row["contig"]: float(row["bits_per_base"]) for row in rows if row["step"] == rows[-1]["step"]},
    }


def of_table(path: Path) -> dict[str, dict[str, float]]:
    """By region's name: bases, bits per base, and beside it those of an order-k context model where there is one."""
    with path.open(newline="") as stream:
        rows = [row for row in csv.DictReader(stream, delimiter="\t") if row["bits_per_base"] != "NA"]
    columns = ["bits_per_base", *(name for name in (rows[0] if rows else ()) if CONTEXT.fullmatch(name))]
    grouped = defaultdict(list)
    for row in rows:
        grouped[row["contig"] if row["name"] in ("", ".") else row["name"]].append(row)
    return {
        name: {"bases": sum(int(row["bases"]) for row in own)}
        | {column: mean([(int(row["bases"]), float(row[column])) for row in own]) for column in columns}
        for name, own in grouped.items()
    }


def mean(parts: Sequence[tuple[int, float]]) -> float:
    """Of figures per base, by bases."""
    return round(sum(bases * bits for bases, bits in parts) / sum(bases for bases, _ in parts), 4)


def write_page(results: Path, out: Path) -> None:
    parts = ["# Results\n", "Written by `python benchmarks/results_page.py page` from `benchmarks/results/`.\n"]
    for path in sorted(results.glob("quality_*.json")):
        if path.name != PEERS:
            peers = json.loads((results / PEERS).read_text())
            picture = out.with_name(f"{path.stem}.png")
            found = json.loads(path.read_text())
            draw(found, peers, picture)
            parts += quality(found, peers, picture.name)
    for title, pattern in (("Sequences", "classification*.md"), ("Variants", "clinvar*.md")):
        tables = [path.read_text() for path in sorted(results.glob(pattern))]
        if tables:
            parts += [f"## {title}\n", *tables]
    with whole_file(out) as path:
        path.write_text("\n".join(parts).rstrip() + "\n")


def quality(found: dict[str, Any], peers: dict[str, Any], picture: str) -> list[str]:
    """The section on bits per base: picture, table, configurations."""
    where = f" on one {found['device']}" if found["device"] else ""
    commit = f" (commit {found['commit']})" if found["commit"] else ""
    runs, columns = found["runs"], list(peers["columns"])
    for run in runs:
        columns += [name for table in run["evaluations"].values() for name in table if name not in columns]
    rows = ["| | training | " + " | ".join(columns) + " |", "|---|---:" + "|---:" * len(columns) + "|"]
    for run in runs:
        last = {"valid": run["valid"]["*"]}  # that of its last validation, in windows of the training length
        time = duration(run["train_seconds"])
        for how, table in (run["evaluations"] or {"": {}}).items():
            figures = last | {name: figures["bits_per_base"] for name, figures in table.items()}
            rows.append(line(f"**{run['name']}**{f', {how}' if how else ''}", time, figures, columns))
            time, last = "", {}
    for name, figures in context_models(runs).items():
        rows.append(line(name, "", figures, columns))
    for peer in (*peers["trained"], *peers["counted"]):
        seconds = peer.get("seconds")
        figures = dict(zip(peers["columns"], peer["bits"], strict=True))
        rows.append(line(peer["name"], duration(seconds) if seconds else "", figures, columns))
    parts = [
        f"## Bits per base at equal time{where}\n",
        f"Held-out contigs; validation in windows of the training length{commit}. Below our runs (bold) a context model"
        f" of the same training regions, counted when they were evaluated, then others. {peers['about']}\n",
        f"![bits per base on validation against training time]({picture})\n",
        *rows,
        "",
        *sources(peers),
    ]
    for run in runs:
        seen = run["steps"] * run["configuration"]["window"] * run["configuration"]["batch_size"]
        parts += [
            f"**{run['name']}**: {run['parameters']:,} parameters, seed {run['configuration']['seed']},"
            f" {run['steps']:,} steps, {seen / 1e6:,.0f} Mbp in {run['train_seconds']:.0f} s of training, from"
            f" {run['trained_on_bases']:,} bases; torch {run['versions']['torch']}. Options that are no defaults:\n",
            "```yaml",
            yaml.safe_dump(changed(run["configuration"]), sort_keys=False).rstrip(),
            "```\n",
        ]
        if run.get("note"):
            parts.append(run["note"] + "\n")
    return parts


def sources(peers: dict[str, Any]) -> list[str]:
    """Where the figures of others come from."""
    named = defaultdict(list)
    for peer in (*peers["trained"], *peers["counted"]):
        named[peers["sources"][peer["source"]]].append(peer["name"])
    return [
        f"No command of this repository gives the figures of others; `{PEERS}` has them typed by hand from:\n",
        *(f"- {'; '.join(names)}: {source}." for source, names in named.items()),
        "",
    ]


def context_models(runs: Sequence[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Figures by region of every context model that an evaluation had beside it.

    Two evaluations share a row where the same training regions were counted and no figure differs; that of an adaptive
    model also depends on the regions coded before. Rows that would have the same name say whose they are.
    """
    rows: dict[str, list[tuple[str, str, dict[str, float]]]] = defaultdict(list)
    for run in runs:
        counted = run.get("training_regions", run["name"])  # a run collected without them shares no row
        for how, table in run["evaluations"].items():
            own: dict[str, dict[str, float]] = defaultdict(dict)
            for region, figures in table.items():
                for column, bits in figures.items():
                    if match := CONTEXT.fullmatch(column):
                        own[f"order {match[1]} context model, {match[2]}"][region] = bits
            for name, bits_by_region in own.items():
                for _, other, known in rows[name]:
                    if counted == other and all(known.get(at, bits) == bits for at, bits in bits_by_region.items()):
                        known |= bits_by_region
                        break
                else:
                    rows[name].append((f"{run['name']}, {how}", counted, bits_by_region))
    return {
        f"{name} (beside {whose})" if len(group) > 1 else name: figures
        for name, group in rows.items()
        for whose, _, figures in group
    }


def line(name: str, time: str, figures: dict[str, float | None], columns: Sequence[str]) -> str:
    texts = [f"{bits:.4f}" if (bits := figures.get(column)) is not None else "" for column in columns]
    cells = [text.removesuffix("0") for text in texts]  # others' figures have three places, but for one
    return f"| {name} | {time} | {' | '.join(cells)} |"


def duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 600 else f"{seconds / 60:.1f} min"


def changed(configuration: dict[str, Any]) -> dict[str, Any]:
    """The options that differ from `pretrain`'s defaults."""
    defaults = dataclasses.asdict(pretrain.Config(reference=[], output=""))

    def differing(own: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
        kept = {}
        for name, value in own.items():
            if isinstance(value, dict) and isinstance(other.get(name), dict):
                if inner := differing(value, other[name]):
                    kept[name] = inner
            elif value != other.get(name):
                kept[name] = value
        return kept

    return differing(configuration, defaults)


def draw(found: dict[str, Any], peers: dict[str, Any], picture: Path) -> None:
    """Validation against training time, the peers as points."""
    from matplotlib import pyplot as plt
    from matplotlib.ticker import FuncFormatter

    figure, axis = plt.subplots(figsize=(7, 4))
    for number, run in enumerate(found["runs"]):
        seconds, bits = zip(*run["curve"], strict=True)
        axis.plot(seconds, bits, color=f"C{number}", marker=".", lw=1.5, label=run["name"])
    place = peers["columns"].index("valid")
    for marker, peer in zip("sD^v", (p for p in peers["trained"] if p["bits"][place] is not None), strict=False):
        axis.plot(peer["seconds"], peer["bits"][place], "k", marker=marker, ls="", ms=5, label=peer["name"])
    axis.set(xlabel="seconds of training", ylabel="bits per base on validation", xscale="log")
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    axis.grid(alpha=0.3, which="both")
    axis.legend(fontsize=7, loc="upper left", bbox_to_anchor=(1.01, 1.0))
    figure.savefig(picture, dpi=120, bbox_inches="tight", metadata={"Software": None})
    plt.close(figure)


if __name__ == "__main__":
    main()
