"""One self-contained HTML page about a variant classifier: how it was trained, and every figure of its evaluation.

The figures are read from the JSON that `genomamba evaluate variants -o` wrote; nothing is computed anew.
"""

from __future__ import annotations

from dataclasses import dataclass

from genomamba.pipelines.option import option


@dataclass(frozen=True)
class Config:
    model: str = option("run folder of `genomamba finetune variants`", short="-m", reads="model")
    evaluation: str = option("JSON of `genomamba evaluate variants -o`", short="-e", reads="file")
    output: str = option(
        "HTML file to write; - is stdout", short="-o", writes="file", stdout=True, formats=(".html", ".htm")
    )
    force: bool = option("replace an existing file", False)


def run(config: Config) -> int:
    from genomamba.model.folder_files import VARIANT
    from genomamba.pipelines.model_kind import check_head

    check_head(config.model, VARIANT)  # before what takes seconds to import

    from genomamba.data.tracks import write_text
    from genomamba.files import refuse_existing
    from genomamba.pipelines.report_page import render

    if config.output != "-":
        refuse_existing(config.output, force=config.force)
    write_text(config.output, [render(config.model, config.evaluation)])
    if config.output != "-":
        print(config.output)
    return 0
