"""A benchmark's runs as series: a grid with the first seed, then what did best of it with the other seeds.

Results are written after every run, so that a stopped benchmark goes on where it was; those of other settings are
refused. A setting whose run fails is not chosen.
"""

from __future__ import annotations

import argparse
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

from made_with import command, keep_made_with
from side_by_side import Job, side_by_side

from genomamba.files import whole_file


class Series(ABC):
    """The runs of one task, from one start, by one method.

    A job's name is ``NAME, WHAT`` for a training, WHAT a setting or a seed, and ``NAME, WHAT, test`` for a test.

    Args:
        name: of the series; it has no comma.
        folder: for the models.
        seeds: the first of them is that of the grid.
        grid: settings, by the numbers that they go by in ``found``.
        found: what is known already; changed in place.
        decisive: the options and fingerprints that decide what is found.

    Raises:
        SystemExit: what is known was made with something else.
    """

    CHOSEN: ClassVar[str]  # where `found` has the setting that did best
    SETTING: ClassVar[str]  # what begins the name of a setting's run
    SEED: ClassVar[str]  # what begins that of a seed's

    def __init__(
        self,
        name: str,
        folder: Path,
        seeds: Sequence[int],
        grid: dict[str, Any],
        found: dict[str, Any],
        decisive: dict[str, Any],
    ) -> None:
        self.name, self.folder, self.seeds, self.grid, self.found = name, folder, seeds, grid, found
        self.failed: dict[str, str] = {}
        if len(grid) > 1:
            decisive = {**decisive, "first_seed": seeds[0]}  # which chose among them
        keep_made_with(found, decisive, name)

    @abstractmethod
    def training(self, what: str, setting: Any, seed: int) -> Job:
        """A run, of which `good` says how well it did; its model goes to the folder's ``what``."""

    @abstractmethod
    def testing(self, what: str, made: dict[str, Any]) -> Job:
        """The test of the model in the folder's ``what``, whose run answered ``made``."""

    @abstractmethod
    def good(self, made: dict[str, Any]) -> float:
        """What the best setting has most of, which test has no part in."""

    @abstractmethod
    def close_grid(self) -> None:
        """Leaves in ``found`` what is worth keeping of the settings that were tried, and of those that failed."""

    def begin(self) -> Iterator[Job]:
        """The jobs that nothing stands before."""
        if len(self.grid) == 1 and self.CHOSEN not in self.found:
            self.found |= {self.CHOSEN: next(iter(self.grid.values())), "seeds": []}
        if self.CHOSEN in self.found:
            yield from self._others(self.seeds)
        else:
            tried = self.found.setdefault("tried", {})
            for number, setting in self.grid.items():
                if number not in tried:
                    yield self.training(f"{self.SETTING}{number}", setting, self.seeds[0])

    def take(self, job: Job, result: dict[str, Any]) -> Iterator[Job]:
        """What a finished job gave; and the jobs that it makes possible."""
        _, what, *tested = job.name.split(", ")
        if tested:
            self.found["seeds"] = sorted([*self.found["seeds"], result], key=lambda run: run["seed"])
        elif what.startswith(self.SEED):
            yield self.testing(what, result)
        else:
            self.found["tried"][what.removeprefix(self.SETTING)] = result
            yield from self._choose()

    def lose(self, job: Job, why: str) -> Iterator[Job]:
        """The jobs that a failed one makes possible: of the grid, the others are chosen among."""
        _, what, *tested = job.name.split(", ")
        if what.startswith(self.SETTING) and not tested:
            self.failed[what.removeprefix(self.SETTING)] = why
            yield from self._choose()

    def _others(self, seeds: Sequence[int]) -> Iterator[Job]:
        known = [run["seed"] for run in self.found["seeds"]]
        for seed in seeds:
            if seed not in known:
                yield self.training(f"{self.SEED}{seed}", self.found[self.CHOSEN], seed)

    def _choose(self) -> Iterator[Job]:
        """Once no setting is outstanding."""
        tried = self.found["tried"]
        if not tried or len(tried) + len(self.failed) < len(self.grid):
            return
        best = max(sorted(tried, key=float), key=lambda number: self.good(tried[number]))
        self.found[self.CHOSEN] = self.grid[best]
        self.close_grid()
        self.found["seeds"] = []
        if (self.folder / f"{self.SETTING}{best}").exists():
            yield self.testing(f"{self.SETTING}{best}", tried[best])
            yield from self._others(self.seeds[1:])
        else:  # tried before the benchmark was stopped, which kept no model
            yield from self._others(self.seeds)


def add_options(parser: argparse.ArgumentParser) -> None:
    """What every benchmark of series takes."""
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument(
        "--set", nargs="+", default=[], metavar="OPTION=VALUE", help="any other option of the command, such as epochs=3"
    )
    parser.add_argument("--jobs", type=int, default=1, help="runs side by side")
    parser.add_argument("--minutes", type=float, help="of the clock, after which what is not finished is given up")
    parser.add_argument("--device", choices=("auto", "cpu", "gpu"), default="auto")


def run_series(
    series: Sequence[Series], options: argparse.Namespace, report: dict[str, Any], table: Callable[[], str]
) -> None:
    """Does what is not done yet; ``report`` goes to ``--out`` after every run.

    Args:
        series: whose ``found`` are parts of the report.
        options: of the command line.
        report: gets the command, and a list of what was not run.
        table: the report as Markdown, which goes beside it.
    """
    by_name = {each.name: each for each in series}

    def done(job: Job, result: dict[str, Any]) -> list[Job]:
        more = list(by_name[job.name.partition(",")[0]].take(job, result))
        _write(report, options.out, table)
        return more

    def lost(job: Job, why: str) -> list[Job]:
        return list(by_name[job.name.partition(",")[0]].lose(job, why))

    if command() not in report.setdefault("commands", []):
        report["commands"].append(command())
    jobs = [job for each in series for job in each.begin()]
    report["not_run"] = side_by_side(jobs, options.jobs, done, lost=lost, minutes=options.minutes)
    _write(report, options.out, table)


def made_by(report: dict[str, Any]) -> list[str]:
    """Lines of Markdown: the commands that the report comes from, what was noted by hand, and what was not run."""
    lines = ["", "Made by", "", "```", *report.get("commands", ()), "```"]
    if note := report.get("note"):
        lines += ["", note]
    if not_run := report.get("not_run"):
        lines += ["", "Not run: " + "; ".join(f"{name} ({why})" for name, why in not_run.items()) + "."]
    return lines


def _write(report: dict[str, Any], out: Path, table: Callable[[], str]) -> None:
    with whole_file(out) as path:
        path.write_text(json.dumps(report, indent=1) + "\n")
    with whole_file(out.with_suffix(".md")) as path:
        path.write_text(table())
