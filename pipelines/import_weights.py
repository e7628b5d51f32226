"""Turn a checkpoint of state-spaces/mamba, Caduceus or transformers into a model folder."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from genomamba.pipelines.option import option
from genomamba.pipelines.shipped import model_folder


@dataclass(frozen=True)
class Config:
    checkpoint: str = option(
        "the checkpoint: a folder, a .safetensors or .bin file, or owner/name on the Hugging Face hub",
        positional=True,
        reads="checkpoint",
    )
    output: str = option("folder to write", short="-o", writes="folder")
    original_config: str | None = option(
        "the original's config.json, where it is not beside the weights", None, reads="file"
    )
    set: list[str] = option(
        "key=value in the words of the original's config.json, e.g. ssm_cfg.ngroups=2, over what it or shapes say", []
    )
    window: int | None = option("bases per window that commands use with this model unless told", None)
    force: bool = option("replace an existing output", False)


def run(config: Config) -> int:
    from genomamba import __version__
    from genomamba.errors import OutputError
    from genomamba.files import refuse_existing
    from genomamba.interop.importing import import_model
    from genomamba.model.folder import PROVENANCE, save_model, task_of

    refuse_existing(config.output, force=config.force, folder=True)
    folder = Path(config.output)
    if folder.is_dir() and any(folder.iterdir()) and not (folder / PROVENANCE).is_file():
        raise OutputError("the folder is not one of ours, nor empty", "choose another -o", file=folder)
    imported = import_model(model_folder(config.checkpoint), config.set, config=config.original_config)
    parameters = sum(p.numel() for p in imported.model.parameters())
    facts = {
        "genomamba": __version__,
        "imported_from": config.checkpoint,
        "original": imported.dialect.name,
        "original_config": imported.config,
        "configuration_from": "shapes" if imported.guessed else "config.json",
        "window": config.window,
        "parameters": parameters,
    }
    task = task_of(imported.model)
    save_model(imported.model, folder, card=card(config, imported.dialect.name, task, parameters), provenance=facts)
    print(f"{folder}: {imported.dialect.name}, {task}, {parameters:,} parameters", file=sys.stderr)
    if imported.guessed:
        shown = ", ".join(f"{key}={value}" for key, value in imported.config.items())
        print(f"there was no config.json; from shapes: {shown}; correct it with --set", file=sys.stderr)
    return 0


def card(config: Config, original: str, task: str, parameters: int) -> str:
    """The model card."""
    return f"""# Imported from {original}

`{config.checkpoint}`, {task}, {parameters:,} parameters. What the original said of its data, licence and intended use
holds here too. Ids are taken to be those of GenoMamba's alphabet (A 7, C 8, G 9, T 10, N 11, as in Caduceus).
"""
