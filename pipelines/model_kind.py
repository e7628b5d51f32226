"""Whether -m names a model of the kind that a command needs: asked before torch is imported."""

from __future__ import annotations

from typing import Any

from genomamba.errors import CheckpointError
from genomamba.model.folder_files import CAUSAL, MASKED, SEQUENCE, TOKEN, VARIANT, read_config
from genomamba.model.pretrained import located

KINDS = {
    CAUSAL: "a causal language model",
    MASKED: "a masked language model",
    SEQUENCE: "a model of whole sequences",
    TOKEN: "a model of tracks",
    VARIANT: "a variant classifier",
}
MADE_BY = {SEQUENCE: "finetune sequences", TOKEN: "finetune tracks", VARIANT: "finetune variants"}


def check_head(given: str, wanted: str, *others: str) -> dict[str, Any]:
    """The config.json of a model that has the head that is wanted.

    Args:
        given: what -m names: a folder, or the model that ships, which has no head.
        wanted: `SEQUENCE`, `TOKEN` or `VARIANT`.
        others: kinds that will do as well.

    Raises:
        CheckpointError: the folder is not whole, or its model is of another kind.
    """
    config = read_config(located(given))
    kind = config["task"]
    if kind in (wanted, *others) or kind not in KINDS:  # of the latter, reading the model says what is wrong
        return config
    command = MADE_BY[wanted]
    if kind in (CAUSAL, MASKED):
        raise CheckpointError(
            f"it is {KINDS[kind]}, which has no {'head for tracks' if wanted == TOKEN else 'classification head'}",
            f"make {KINDS[wanted]} of it by `genomamba {command} -m {given}`",
            file=given,
        )
    raise CheckpointError(f"it is {KINDS[kind]}, not {KINDS[wanted]}", f"give a run folder of `{command}`", file=given)


def check_causal(given: str) -> None:
    """For what only a model that reads in one direction can do: bits of each base given those before it.

    Args:
        given: what -m names.

    Raises:
        CheckpointError: the folder is not whole, or its model is of another kind.
    """
    kind = read_config(located(given))["task"]
    if kind == MASKED:
        raise CheckpointError(
            f"it is {KINDS[kind]}, which looks both ways and has no likelihood of a region read from its start",
            "measure its pseudo-likelihood by `genomamba likelihood`, with the same -r, -b and -m",
            file=given,
        )
    if kind != CAUSAL and kind in KINDS:  # of others, reading the model says what is wrong
        raise CheckpointError(
            f"it is {KINDS[kind]}, which predicts no bases", "give the language model that it was made of", file=given
        )
