"""The words of --tracks: files, and the names of their tracks. Needs no torch."""

from __future__ import annotations

from collections.abc import Sequence

from genomamba.data.compressed import check_there
from genomamba.errors import ConfigError, LabelError

ENDINGS = (".bw", ".bigwig")


def named_tracks(words: Sequence[str]) -> dict[str, str]:
    """Files by the names of their tracks, which also name the files that `predict` writes.

    Args:
        words: each FILE, or NAME=FILE.

    Raises:
        ConfigError: a name that cannot be part of a file's, or one for two tracks.
        LabelError: a file is missing.
    """
    found: dict[str, str] = {}
    for word in words:
        name, equals, path = word.partition("=")
        if not equals or "/" in name:  # a folder may have = in its name
            path = word
            name = word.rpartition("/")[2]
            ending = next((each for each in ENDINGS if name.lower().endswith(each)), "")
            name = name[: len(name) - len(ending)]
        if not name or not path or not name.isprintable() or " " in name:
            raise ConfigError(
                "its name cannot be that of a track", "write NAME=FILE, without spaces", field="tracks", value=word
            )
        if name in found:
            raise ConfigError(f"there are two of the name {name}", "write NAME=FILE", field="tracks", value=word)
        found[name] = path
    for path in found.values():
        check_there(path, LabelError)
    return found
