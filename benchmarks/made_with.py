"""What a benchmark's results were made with, kept beside them so that others are not taken for them."""

from __future__ import annotations

import hashlib
import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any


def keep_made_with(found: dict[str, Any], made_with: dict[str, Any], whose: str) -> None:
    """Writes ``made_with`` into results that are empty yet.

    Args:
        found: the results, as read from their JSON.
        made_with: the options and fingerprints that decide them.
        whose: for the message.

    Raises:
        SystemExit: the results were made with something else.
    """
    made_with = json.loads(json.dumps(made_with))  # as it is read back
    if not found:
        found["made_with"] = made_with
        return
    before = found.get("made_with", {})
    other = sorted(name for name in before.keys() | made_with.keys() if before.get(name) != made_with.get(name))
    if other:
        raise SystemExit(
            f"--out has results of {whose} that were made with another {', '.join(other)}; give another --out"
        )


def command() -> str:
    """This program's command line, as it is typed at the root of the repository."""
    return shlex.join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *sys.argv[1:]])


def commit() -> str | None:
    """What is checked out; None outside a git checkout, which is no reason to lose what was measured."""
    asked = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    return asked.stdout.strip() or None


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
