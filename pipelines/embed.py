"""Hidden states of a model for contigs or regions: pooled into one vector each, or of every base.

The input's records keep their rows, in order; one without a base has a status that says why, and no vector. With
--pool none there is a row per base of every region that has any (Parquet), or an array per region (.npz, by number).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Literal

from genomamba.data.bed import Edge
from genomamba.pipelines import common_options as common
from genomamba.pipelines.option import option
from genomamba.pipelines.shipped import model_folder
from genomamba.tasks.config import Device

if TYPE_CHECKING:
    import numpy as np
    import torch

    from genomamba.data.reference import Reference
    from genomamba.data.vectors import VectorBlock
    from genomamba.pipelines.region_rows import Row
    from genomamba.scoring.embeddings import Embedder, Pooling

AT_ONCE = 4096  # regions per block of a file
BASE_COLUMNS: dict[str, type[str] | type[int]] = {"region": int, "name": str, "contig": str, "pos": int, "base": str}


@dataclass(frozen=True)
class Config:
    reference: str = option("FASTA that is to be read", short="-r", reads="file")
    output: str = option(".parquet or .npz", short="-o", writes="file")
    model: str = common.any_model_or_shipped("model")
    pool: Literal["mean", "max", "last", "none"] = option(
        "how a region's bases become one vector; none: a vector per base", "mean"
    )
    regions: str | None = common.bed_of_regions("every record whole")
    region: list[str] = common.named_regions()
    edge: Edge = common.edge()
    contig_aliases: common.ContigAliases = common.contig_aliases()
    both_strands: bool = option("mean of both strands; otherwise the strand that a region names, else +", False)
    window: int | None = common.reading_window()
    overlap: int | None = common.reading_overlap()
    batch_size: int = option("regions per forward pass, of those that fit a window", 32, at_least=1)
    rna: bool = option("read U in the reference as T", False)
    device: Device = option("where to run", "auto")
    force: bool = option("replace an existing output", False)


def run(config: Config) -> int:
    from genomamba.data.vectors import vector_format, write_npz, write_parquet
    from genomamba.files import refuse_existing
    from genomamba.pipelines.chosen_regions import chosen_regions
    from genomamba.pipelines.open_reference import open_reference
    from genomamba.pipelines.region_rows import REGION_COLUMNS, region_rows, say_statuses
    from genomamba.progress import progress_bar
    from genomamba.tasks.device import resolve_device

    form = vector_format(config.output)
    refuse_existing(config.output, force=config.force)
    device = resolve_device(config.device)
    config = replace(config, model=model_folder(config.model))
    reference = open_reference(config.reference, rna=config.rna)
    embedder = make_embedder(config, reference, device)
    rows = region_rows(chosen_regions(config, reference), reference)
    with progress_bar() as bar:
        task = bar.add_task("embedding", total=sum(row.is_read for row in rows), note="regions")
        progress = partial(bar.advance, task)
        if config.pool == "none":
            if form == "parquet":
                write_parquet(config.output, BASE_COLUMNS, embedder.width, base_blocks(embedder, rows, progress))
            else:
                write_npz(config.output, base_arrays(embedder, rows, progress))
        else:
            blocks = pooled_blocks(embedder, rows, config.pool, progress)
            if form == "parquet":
                write_parquet(config.output, REGION_COLUMNS, embedder.width, blocks)
            else:
                write_npz(config.output, pooled_arrays(embedder.width, blocks))
    print(f"{config.output}: {len(rows):,} regions, {embedder.width} numbers per vector", file=sys.stderr)
    say_statuses(rows)
    return 0


def make_embedder(config: Config, reference: Reference, device: torch.device) -> Embedder:
    """Of any model that has a backbone, which is all of them."""
    from genomamba.data.datasets import WindowReader
    from genomamba.interop.loading import load_any_model
    from genomamba.pipelines.reading_windows import reading_windows
    from genomamba.scoring.embeddings import Embedder

    backbone = load_any_model(config.model).backbone
    window, overlap = reading_windows(config, is_causal=backbone.config.is_causal)
    return Embedder(
        *(backbone, WindowReader(reference, softmask_weight=1.0)),
        window=window,
        overlap=overlap,
        batch_size=config.batch_size,
        both_strands=config.both_strands,
        device=device,
    )


def pooled_blocks(
    embedder: Embedder, rows: Sequence[Row], how: Pooling, progress: Callable[[int], object]
) -> Iterator[VectorBlock]:
    """One row per record; NaN where there is no vector."""
    import numpy as np

    from genomamba.data.vectors import VectorBlock
    from genomamba.pipelines.region_rows import region_columns

    for start in range(0, len(rows), AT_ONCE):
        block = rows[start : start + AT_ONCE]
        vectors = np.full((len(block), embedder.width), np.nan, dtype=np.float32)
        read = [place for place, row in enumerate(block) if row.is_read]
        if read:
            vectors[read] = embedder.pooled([block[place].interval for place in read], how, progress)
        yield VectorBlock(region_columns(block), vectors)


def pooled_arrays(width: int, blocks: Iterator[VectorBlock]) -> Iterator[tuple[str, np.ndarray]]:
    """The columns, and ``embedding``, (records, width)."""
    import numpy as np

    from genomamba.pipelines.region_rows import REGION_COLUMNS

    every = list(blocks)
    for name, kind in REGION_COLUMNS.items():
        yield name, np.array([value for block in every for value in block.columns[name]], dtype=kind)
    yield "embedding", np.concatenate([np.empty((0, width), np.float32), *(block.vectors for block in every)])


def base_blocks(embedder: Embedder, rows: Sequence[Row], progress: Callable[[int], object]) -> Iterator[VectorBlock]:
    """One row per base of each region that is read, in the direction in which it is read."""
    import numpy as np

    from genomamba.data.vectors import VectorBlock

    for number, row in enumerate(rows):
        if not row.is_read:
            continue
        interval = row.interval
        positions = np.arange(interval.start + 1, interval.end + 1)[:: -1 if interval.strand == "-" else 1]
        letters = embedder.reader.reference.fetch(interval).tobytes().decode("ascii")
        done = 0
        for vectors in embedder.bases(interval):
            here = slice(done, done + len(vectors))
            columns = {
                "region": [number] * len(vectors),
                "name": [row.region.record.name] * len(vectors),
                "contig": [interval.contig] * len(vectors),
                "pos": positions[here].tolist(),
                "base": list(letters[here]),
            }
            yield VectorBlock(columns, vectors)
            done += len(vectors)
        progress(1)


def base_arrays(
    embedder: Embedder, rows: Sequence[Row], progress: Callable[[int], object]
) -> Iterator[tuple[str, np.ndarray]]:
    """The columns of the records, and an array (bases, width) for each that is read, by its number from 0."""
    import numpy as np

    from genomamba.pipelines.region_rows import REGION_COLUMNS, region_columns

    for name, values in region_columns(rows).items():
        yield name, np.array(values, dtype=REGION_COLUMNS[name])
    for number, row in enumerate(rows):
        if row.is_read:
            yield str(number), np.concatenate(list(embedder.bases(row.interval)))
            progress(1)
