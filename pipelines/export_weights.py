"""Write a language model as state-spaces/mamba, Caduceus or transformers would, or say why that cannot be."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Literal

from genomamba.pipelines.option import option
from genomamba.pipelines.shipped import OR_SHIPPED


@dataclass(frozen=True)
class Config:
    model: str = option(f"folder of the model, {OR_SHIPPED}", short="-m", reads="checkpoint")
    output: str = option("folder to write", short="-o", writes="folder")
    to: Literal["state-spaces", "caduceus", "transformers"] = option("whose format", "transformers")
    force: bool = option("replace the files of an existing output", False)


def run(config: Config) -> int:
    from genomamba.files import refuse_existing
    from genomamba.interop.exporting import export_model
    from genomamba.interop.loading import load_any_model

    refuse_existing(config.output, force=config.force, folder=True)
    written = export_model(load_any_model(config.model), config.output, config.to)
    print(f"{written}: written for {config.to}", file=sys.stderr)
    return 0
