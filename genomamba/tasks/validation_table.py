"""validation.tsv: what every validation found, contig by contig, soft-masked bases apart from unique ones."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lightning import Callback, LightningModule, Trainer

from genomamba.files import whole_file
from genomamba.tasks.pretrain import BITS_PER_NAT, STRATA, PretrainTask

NAME = "validation.tsv"
COLUMNS = ("step", "contig", "stratum", "bases", "bits_per_base")


class ValidationTable(Callback):
    """Writes folder/validation.tsv anew after each validation; a step counts from 1, as checkpoints do.

    Args:
        folder: of the run.
        contigs: of the validation split, as `Batch.group` numbers them.
        before: keep the rows of earlier runs up to this step.
    """

    def __init__(self, folder: Path, contigs: Sequence[str], *, before: int = 0) -> None:
        self._path, self._contigs = folder / NAME, list(contigs)
        self._rows: list[list[str]] = []
        if before and self._path.is_file():
            rows = [line.split("\t") for line in self._path.read_text(encoding="utf-8").splitlines()[1:]]
            self._rows = [row for row in rows if int(row[0]) <= before]

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, PretrainTask)
        step = str(trainer.global_step)
        self._rows = [row for row in self._rows if row[0] != step]
        table = pl_module.validation_strata.tolist()
        everywhere = pl_module.validation_strata.sum(0).tolist()
        for contig, strata in [*zip(self._contigs, table, strict=True), ("*", everywhere)]:
            whole = [sum(column) for column in zip(*strata, strict=True)]
            for name, (nats, bases) in zip((*STRATA, "all"), (*strata, whole), strict=True):
                bits = f"{nats / bases * BITS_PER_NAT:.6f}" if bases else "NA"
                self._rows.append([step, contig, name, str(int(bases)), bits])
        with whole_file(self._path) as temporary, temporary.open("w", encoding="utf-8") as stream:
            stream.writelines("\t".join(row) + "\n" for row in (COLUMNS, *self._rows))
