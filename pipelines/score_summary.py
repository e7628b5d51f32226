"""What `score` says when it is done: how many alleles were scored, and why others were not."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple, TextIO

from genomamba.data.variants import Status
from genomamba.files import whole_file

if TYPE_CHECKING:
    from genomamba.pipelines.score import Config

SKIPPED_TOO_MANY = 3  # the exit code


class Counts(NamedTuple):
    """What became of the input."""

    records: int
    statuses: Counter[Status]

    @property
    def alleles(self) -> int:
        return sum(self.statuses.values())

    @property
    def scored(self) -> int:
        return sum(number for status, number in self.statuses.items() if status.scored)

    def write(self, config: Config) -> None:
        """Writes them as JSON where that is asked for."""
        if config.summary is None:
            return
        by_status = {str(status): number for status, number in sorted(self.statuses.items())}
        figures = {"records": self.records, "alleles": self.alleles, "scored": self.scored, "by_status": by_status}
        with whole_file(config.summary) as path:
            path.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")

    def report(self, config: Config, stream: TextIO) -> int:
        """Prints them; returns the exit code."""
        print(
            f"{config.output}: {self.records:,} records, {self.alleles:,} alleles, {self.scored:,} scored", file=stream
        )
        for status, number in sorted(self.statuses.items(), key=lambda item: -item[1]):
            print(f"  {status:<26}{number:>10,}", file=stream)
        skipped = (self.alleles - self.scored) / self.alleles if self.alleles else 0.0
        if skipped > config.max_skip_frac:
            print(f"max_skip_frac={config.max_skip_frac}: {skipped:.3f} of the alleles were skipped", file=stream)
            return SKIPPED_TOO_MANY
        return 0
