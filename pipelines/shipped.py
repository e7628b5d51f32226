"""The model that ships, where -m names it or is not given: which one it is goes to stderr."""

from __future__ import annotations

import sys

from genomamba.model.pretrained import SHIPPED, located

#: what the help of -m says
OR_SHIPPED = "or `shipped`, the language model that comes with genomamba"
WHEN_NOT_GIVEN = "the language model that ships with genomamba when not given"


def model_folder(given: str) -> str:
    """The folder that -m means; where it is that of the model that ships, stderr hears which one that is."""
    if given != SHIPPED:
        return given
    folder = located(given)
    print(f"the model is {folder.name}, which ships with genomamba", file=sys.stderr)
    return str(folder)


def tell_what_it_saw() -> None:
    """Tells stderr what that model was trained on: sequence that it saw is no fair validation of what grows from it."""
    from genomamba.pipelines.model_provenance import read_provenance

    folder = located(SHIPPED)
    made = read_provenance(str(folder))
    used = made["configuration"]
    named = ", ".join([*used["valid"], *used["test"]])
    print(
        f"it was trained on {made['trained_on_bases']:,} bases of {', '.join(used['reference'])} (regions in"
        f" {folder / 'training.bed'}){f', without {named}' if named else ''}: other sequence that you hold out it may"
        " have seen",
        file=sys.stderr,
    )


def shipped_lines() -> list[tuple[str, str]]:
    """What `info` says of that model: its name and version, whether its weights are whole, and what made it."""
    from genomamba.model.folder import weights_fingerprint
    from genomamba.pipelines.model_provenance import read_provenance

    folder = located(SHIPPED)
    made = read_provenance(str(folder))
    known, used = made["shipped"], made["configuration"]
    weights = weights_fingerprint(folder)
    whole = "" if weights == known["sha256"] else f"; NOT as it was shipped, which was {known['sha256']}"
    return [
        ("model", f"{known['name']} (version {known['version']}), {used['objective']}, taken where -m is not given"),
        ("  sha256", f"{weights}{whole}"),
        ("  trained on", f"{made['trained_on_bases']:,} bases of {', '.join(used['reference'])}"),
        ("  bits per base", f"{made['valid_bits_per_base']:.4f} on {', '.join(made['held_out']['valid'])}"),
        ("  made by", known["command"]),
    ]
