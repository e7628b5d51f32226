"""Vectors with what they belong to, as files: Parquet, or NumPy's .npz."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from genomamba.errors import OutputError
from genomamba.files import whole_file

VectorFormat = Literal["parquet", "npz"]


class VectorBlock(NamedTuple):
    """Rows of a table."""

    columns: Mapping[str, Sequence[Any]]  # name → one value per row, text or whole numbers
    vectors: NDArray[np.float32]  # (rows, width); a row of NaN has none


def vector_format(path: str | os.PathLike[str]) -> VectorFormat:
    """The format that a path's extension asks for.

    Raises:
        OutputError: an extension that is none of .parquet and .npz.
    """
    suffix = os.path.splitext(path)[1].lower()
    if suffix == ".parquet":
        return "parquet"
    if suffix == ".npz":
        return "npz"
    raise OutputError("the extension names no format of vectors", "use .parquet or .npz", file=path)


def write_parquet(
    path: str | os.PathLike[str],
    columns: Mapping[str, type[str] | type[int]],
    width: int,
    blocks: Iterable[VectorBlock],
    *,
    folder: Path | None = None,
) -> None:
    """A table with a column ``embedding`` of ``width`` 32-bit floats, null where there is none; a block at a time.

    Args:
        path: the file.
        columns: names and types of the others, which a table without rows has too.
        width: of a vector.
        blocks: rows, with these columns.
        folder: see `whole_file`.

    Raises:
        OutputError: it cannot be written.
    """
    import pyarrow
    import pyarrow.parquet

    types = {name: pyarrow.string() if kind is str else pyarrow.int64() for name, kind in columns.items()}
    schema = pyarrow.schema({**types, "embedding": pyarrow.list_(pyarrow.float32(), width)})
    with whole_file(path, folder=folder) as temporary, pyarrow.parquet.ParquetWriter(temporary, schema) as writer:
        for values, vectors in blocks:
            missing = np.isnan(vectors).all(axis=1)
            flat = pyarrow.array(np.ascontiguousarray(vectors, dtype=np.float32).reshape(-1))
            embedding = pyarrow.FixedSizeListArray.from_arrays(flat, width, mask=pyarrow.array(missing))
            writer.write_table(pyarrow.table({**values, "embedding": embedding}, schema))


def write_npz(
    path: str | os.PathLike[str], arrays: Iterable[tuple[str, NDArray[Any]]], *, folder: Path | None = None
) -> None:
    """Named arrays, one at a time, for ``numpy.load``; text is stored as text, not as objects.

    Args:
        path: the file.
        arrays: names and arrays.
        folder: see `whole_file`.

    Raises:
        OutputError: it cannot be written.
    """
    with whole_file(path, folder=folder) as temporary, zipfile.ZipFile(temporary, "w", allowZip64=True) as archive:
        for name, array in arrays:
            with archive.open(f"{name}.npy", "w", force_zip64=True) as stream:
                np.lib.format.write_array(stream, np.ascontiguousarray(array), allow_pickle=False)
