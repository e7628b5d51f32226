"""Kill `genomamba score` at random moments, resume it, and compare its output with one that nothing disturbed.

One run is left alone and timed. Then runs are begun, each killed (SIGKILL, the whole process group) at a moment drawn
evenly from that time, and resumed until they end; a run that ends before its kill is followed by a new one, until
there were as many kills as asked for. Every finished output must have the sha256 of the undisturbed one. Prints a
line per kill, writes JSON where asked (with the command, the model, the versions, and what became of the undisturbed
run's records), and exits with 1 when any output differs.

    python benchmarks/score_kills.py --kills 20
    python benchmarks/score_kills.py -r genome.fa.gz -i variants.vcf.gz -m runs/mine --suffix .vcf.gz -- --device gpu

Without -r and -i it takes the bundled human example, without -m a small model with random weights. What stands after
``--`` goes to `genomamba score`.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from made_with import command

from genomamba.data.example import Name, example_path
from genomamba.data.rows import RowTable
from genomamba.data.table_write import table_format
from genomamba.data.vcf import VcfReader
from genomamba.errors import UserError
from genomamba.model.folder import weights_fingerprint
from genomamba.pipelines.run_folder import versions


def random_model(folder: Path) -> Path:
    """A model folder, the same whenever it is made."""
    import torch

    from genomamba.model.backbone import CausalLM
    from genomamba.model.config import ModelConfig
    from genomamba.model.folder import save_model

    torch.manual_seed(0)
    config = ModelConfig(d_model=32, n_layer=2, d_state=8)
    save_model(CausalLM(config), folder, card="Random weights.\n", provenance={"window": 256})
    return folder


class Scoring:
    """One command line, apart from where it writes."""

    def __init__(self, reference: Path, variants: Path, model: Path, more: list[str]) -> None:
        self.words = ["-r", reference, "-i", variants, "-m", model, *more]

    def start(self, output: Path, *more: str) -> subprocess.Popen:
        words = [sys.executable, "-m", "genomamba", "score", *self.words, "-o", output, *more]
        log = (output.parent / "log").open("a")
        return subprocess.Popen([str(word) for word in words], stderr=log, start_new_session=True)

    def finish(self, output: Path, *more: str) -> float:
        """Seconds that it took."""
        begun = time.perf_counter()
        if self.start(output, *more).wait():
            raise SystemExit((output.parent / "log").read_text())
        return time.perf_counter() - begun


def killed(process: subprocess.Popen, after: float) -> bool:
    """Whether it still ran after so many seconds, and so was killed."""
    try:
        code = process.wait(after)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        return process.wait() == -signal.SIGKILL
    if code:
        raise SystemExit(f"exit code {code}")
    return False


def sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def count_records(path: Path) -> int:
    """Of an output of `score`; of a table, its rows."""
    if table_format(path):
        return sum(1 for _ in RowTable(path, UserError))
    with VcfReader(path) as reader:
        return sum(1 for _ in reader)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-r", "--reference", type=Path)
    parser.add_argument("-i", "--input", type=Path)
    parser.add_argument("-m", "--model", type=Path)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--suffix", default=".vcf.gz", help="of the output")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="JSON")
    parser.add_argument("more", nargs="*", help="options of `genomamba score`")
    options = parser.parse_args()
    dice = random.Random(options.seed)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))

        def given(path: Path | None, name: Name) -> Path:
            if path is not None:
                return path
            with example_path(name) as bundled:  # a copy: the index is made beside it
                return Path(shutil.copy(bundled, folder / name))

        model = options.model or random_model(folder / "model")
        scoring = Scoring(
            given(options.reference, "reference.fa.gz"),
            given(options.input, "variants.vcf.gz"),
            model,
            options.more or ["--shard-size", "50", "--window", "512"],
        )
        whole, summary = folder / f"whole{options.suffix}", folder / "summary.json"
        scoring.finish(whole)  # makes the index, and fills the caches, so that the time that counts is typical
        seconds = scoring.finish(whole, "--force", "--summary", str(summary))
        wanted, records = sha256(whole), count_records(whole)
        print(f"undisturbed: {records:,} records in {seconds:.1f} s, sha256 {wanted}", flush=True)
        report: dict[str, Any] = {
            "command": command(),
            "model": {"name": model.name if options.model else "random", "weights": weights_fingerprint(model)},
            "versions": versions(),
            "summary": json.loads(summary.read_text()),
            **{"records": records, "seconds": seconds, "sha256": wanted, "kills": [], "outputs": []},
        }

        def finished(output: Path) -> None:
            report["outputs"].append({"sha256": sha256(output), "records": count_records(output)})
            print(f"{output.name} is whole: {report['outputs'][-1]}", flush=True)

        output, kills = folder / f"killed{options.suffix}", 0
        while kills < options.kills:
            work = Path(f"{output}.shards")
            after, resumed = dice.random() * seconds, work.exists()
            begun = time.perf_counter()
            if not killed(scoring.start(output, "--resume"), after):
                seconds = min(seconds, time.perf_counter() - begun) if not resumed else seconds
            else:
                kills += 1
                done = len(list(work.glob("shard-*.json")))
                report["kills"].append({"after_seconds": after, "shards_done": done})
                print(f"kill {kills} after {after:.2f} s: {done} shards done", flush=True)
            if output.exists() and not work.exists():  # whole, be it that the kill came in the process's last moment
                finished(output)
                output.unlink()
        if not output.exists() or Path(f"{output}.shards").exists():
            scoring.finish(output, "--resume")
            finished(output)
        left = [path.name for path in folder.iterdir() if path.name.startswith(output.name) or ".tmp" in path.name]
        report["left_over"] = sorted(set(left) - {output.name, f"{output.name}.tbi", f"{output.name}.csi"})
    good = not report["left_over"] and all(each == {"sha256": wanted, "records": records} for each in report["outputs"])
    report["identical"] = good
    print(f"{kills} kills, {len(report['outputs'])} outputs: {'all identical' if good else 'DIFFERENT'}")
    if options.out:
        options.out.write_text(json.dumps(report, indent=1) + "\n")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
