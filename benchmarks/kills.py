"""Kill training runs at random and compare what they end with, bit by bit, with a run that nothing disturbed.

Ten runs on the CPU with dropout, 0 and 2 loader workers, each killed with SIGKILL twice at random steps, once before
and once after an epoch's end: losses of all steps to the last bit, their windows and the final weights must be those
of the run that nothing disturbed. Then kills while a checkpoint of more than 60 MB is being saved, the folder for
temporary files being on another file system, after each of which the last checkpoint must load; those that came just
after the file had its name are made and checked too, but don't count. Prints one line per run and exits with 1 when
any differs.

    python benchmarks/kills.py --runs 10 --save-kills 30 --tmpdir /dev/shm --out benchmarks/results/kills.json
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from made_with import commit

from genomamba.errors import CheckpointError
from genomamba.tasks.checkpoint_io import read_checkpoint

STEPS, EPOCH = 24, 10
SMALL = (
    f"--model.d_model 16 --model.n_layer 2 --model.dropout 0.2 --window 256 --batch-size 4 --steps {STEPS}"
    f" --validate-every {EPOCH} --checkpoint-every 3 --step-log --valid chr:1-2000 --device cpu"
).split()
LONGEST_WAIT = 0.1  # seconds from the moment that the unfinished file is seen to the kill
LARGE = "--model.d_model 512 --model.n_layer 3 --window 16 --batch-size 1 --steps 100000 --checkpoint-every 1".split()


def pretrain(folder: Path, *words: object, tmpdir: Path | None = None) -> subprocess.Popen:
    reference = folder.parent / "genome.fa"
    command = [sys.executable, "-m", "genomamba", "pretrain", "-r", reference, "-o", folder, *words]
    log = (folder.parent / "log").open("a")
    environment = {**os.environ, **({"TMPDIR": str(tmpdir)} if tmpdir else {})}
    return subprocess.Popen([str(word) for word in command], stderr=log, start_new_session=True, env=environment)


def kill_when(process: subprocess.Popen, ready: object) -> None:
    while process.poll() is None and not ready():  # type: ignore[operator]
        time.sleep(0.001)
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def outcome(folder: Path) -> tuple[bytes, str]:
    return (folder / "model.safetensors").read_bytes(), (folder / "steps.tsv").read_text()


def killed_twice(folder: Path, workers: int, dice: random.Random) -> str:
    steps = folder / "steps.tsv"
    at = [dice.randrange(1, EPOCH), dice.randrange(EPOCH + 1, STEPS - 1)]
    for number, step in enumerate(at):
        process = pretrain(folder, *SMALL, "-@", workers, *(["--resume"] if number else []))
        kill_when(process, lambda step=step: steps.exists() and steps.read_text().count("\n") >= step)
    if pretrain(folder, *SMALL, "-@", workers, "--resume").wait():
        raise SystemExit((folder.parent / "log").read_text())
    return f"{workers} workers, killed after steps {at[0]} and {at[1]}"


def killed_in_saving(folder: Path, kills: int, dice: random.Random, tmpdir: Path | None) -> list[dict[str, Any]]:
    """For each kill, what became of the newest checkpoint."""
    saved, found = folder / "checkpoints", []
    kill_when(pretrain(folder, *LARGE, tmpdir=tmpdir), lambda: any(saved.glob("step-*.ckpt")))  # one to fall back on
    while sum(row["unfinished_file"] for row in found) < kills:
        for unfinished in saved.glob(".*.tmp"):
            unfinished.unlink()
        process = pretrain(folder, *LARGE, "--resume", tmpdir=tmpdir)
        wait = dice.random() * LONGEST_WAIT
        kill_when(process, lambda: any(saved.glob(".*.tmp")) and (time.sleep(wait) or True))  # noqa: B023
        newest = max(saved.glob("step-*.ckpt"), default=None)
        try:
            size = newest.stat().st_size if newest and read_checkpoint(newest) else 0
            print(f"save killed after {wait:.3f} s: {newest.name if newest else 'none yet'} loads, {size / 1e6:.0f} MB")
            found.append({"seconds_into_saving": wait, "unfinished_file": unfinished_left(saved), "bytes": size})
            found[-1] |= {"newest": newest.name if newest else None, "loads": newest is not None}
        except CheckpointError as error:
            print(error)
            found.append({"seconds_into_saving": wait, "unfinished_file": unfinished_left(saved)})
            found[-1] |= {"newest": str(newest), "loads": False}
    return found


def unfinished_left(saved: Path) -> bool:
    """Whether the kill came before the file had its name."""
    return any(saved.glob(".*.tmp"))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--save-kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tmpdir", type=Path, help="TMPDIR of the runs whose saving is killed")
    parser.add_argument("--out", type=Path, help="write the results here as JSON")
    options = parser.parse_args()
    dice = random.Random(options.seed)
    found: dict[str, Any] = {"commit": commit(), "runs": [], "saves": []}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bases = random.Random(0).choices("ACGT", k=60_000)
        (folder / "genome.fa").write_text(">chr\n" + "".join(bases) + "\n")
        if pretrain(folder / "whole", *SMALL).wait():
            raise SystemExit((folder / "log").read_text())
        for number in range(options.runs):
            what = killed_twice(folder / f"run{number}", 2 * (number % 2), dice)
            same = outcome(folder / f"run{number}") == outcome(folder / "whole")
            found["runs"].append({"what": what, "same_bits": same})
            print(f"run {number + 1}: {what}: {'the same bits' if same else 'DIFFERENT'}", flush=True)
        elsewhere = options.tmpdir is not None and options.tmpdir.stat().st_dev != folder.stat().st_dev
        found["tmpdir_on_another_file_system"] = elsewhere
        found["saves"] = killed_in_saving(folder / "large", options.save_kills, dice, options.tmpdir)
    bad = [row for row in found["runs"] if not row["same_bits"]] + [row for row in found["saves"] if not row["loads"]]
    cut = sum(row["unfinished_file"] for row in found["saves"])
    print(f"{len(found['runs'])} runs killed twice, {cut} saves cut, {len(bad)} went wrong")
    if options.out:
        options.out.write_text(json.dumps(found, indent=1) + "\n")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
