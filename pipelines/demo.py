"""Run the whole main job on the bundled human data: index, pretrain, fine-tune, score, evaluate, report.

Every step is a command of its own, printed as it runs, so that it can be typed again with your files. About five
minutes on two CPU cores.
"""

from __future__ import annotations

import shlex
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from genomamba.pipelines.option import option


@dataclass(frozen=True)
class Config:
    output: str = option("folder to create", "demo", short="-o", writes="run")
    force: bool = option("replace an existing folder", False)


class Step:
    """A command of the demo and what it is for."""

    def __init__(self, what: str, *words: object) -> None:
        self.what, self.words = what, [str(word) for word in words]


def steps(folder: Path) -> list[Step]:
    reference, labelled, variants = (folder / name for name in ("reference.fa.gz", "clinvar.vcf.gz", "variants.vcf.gz"))
    pretrained, classifier = folder / "pretrained", folder / "classifier"
    evaluation = folder / "evaluation.json"
    return [
        Step("check the reference and index it", "index", reference),
        Step(
            "learn the language of the reference", "pretrain", "-c", "demo_pretrain", "-r", reference, "-o", pretrained
        ),
        Step(
            "learn pathogenic from benign: BRCA2 and PALB2 train, TP53 validates",
            *("finetune", "variants", "-c", "demo_finetune", "-r", reference, "-i", labelled, "-m", pretrained),
            *("-o", classifier),
        ),
        Step(
            "measure it on BRCA1, which it has not seen",
            *("evaluate", "variants", "-r", reference, "-i", labelled, "-m", classifier, "-o", evaluation),
        ),
        Step(
            "score a VCF",
            *("score", "-r", reference, "-i", variants, "-m", classifier, "-o", folder / "scored.vcf.gz"),
        ),
        Step("put it on a page", "report", "-m", classifier, "-e", evaluation, "-o", folder / "report.html"),
    ]


def run(config: Config) -> int:
    from genomamba.data.example import FILES, example_path
    from genomamba.files import whole_file
    from genomamba.pipelines.cli import main
    from genomamba.pipelines.run_folder import new_run

    with new_run(config.output, config, force=config.force, inputs=()) as folder:
        for name in FILES:
            with example_path(name) as source, whole_file(folder / name) as copy:
                copy.write_bytes(source.read_bytes())
        began = time.perf_counter()
        plan = steps(folder)
        for number, step in enumerate(plan, start=1):
            print(
                f"\n[{number}/{len(plan)}] {step.what}\n  $ genomamba {shlex.join(step.words)}",
                file=sys.stderr,
                flush=True,
            )
            if code := main(step.words):
                return code
        minutes, seconds = divmod(round(time.perf_counter() - began), 60)
        print(last_screen(folder, f"{minutes} min {seconds} s"))
    return 0


def last_screen(folder: Path, took: str) -> str:
    program = shlex.quote(sys.argv[0]) if Path(sys.argv[0]).name == "genomamba" else "genomamba"
    place = shlex.quote(str(folder))
    return f"""
Done in {took}. What was made, in {folder}/:
  report.html        the page to open first: every figure, curve and setting
  scored.vcf.gz      variants.vcf.gz with GENOMAMBA, GM_LLR and GM_PROB in INFO, and its index
  evaluation.json    the figures behind the page
  classifier/        the variant classifier; give it to -m
  pretrained/        the language model that it grew from

Type next:
  {program} score -r your.fa -i your.vcf.gz -m {place}/classifier -o scored.vcf.gz
  {program} pretrain -r your.fa -c pretrain_tiny -o runs/mine
  {program} --help
  bcftools view -H -i 'GM_LLR<-5' {place}/scored.vcf.gz | head      # where bcftools is installed
"""
