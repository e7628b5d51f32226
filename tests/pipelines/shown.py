"""The commands that README, CONTRIBUTING, docs/ and the pages of kernels, benchmarks, the bundled data and the shipped
model show, in blocks and within sentences."""

from __future__ import annotations

import argparse
import re
import shlex
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
SHIPPED = ROOT / "genomamba" / "model" / "pretrained" / "README.md"
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "benchmarks").glob("**/README.md")),
    *sorted((ROOT / "kernels").glob("*/README.md")),
    ROOT / "data" / "example" / "README.md",
    SHIPPED,
]
# In an environment of its own, where `make test` puts it, unless it is on PATH.
SNAKEMAKE = shutil.which("snakemake") or shutil.which("snakemake", path=str(Path(sys.prefix) / "snakemake" / "bin"))
# What of the code within sentences is a command: one of these with words behind it.
PROGRAMS = "genomamba python make snakemake cat bcftools bgzip tabix pytest conda pip git nice torchrun".split()
INLINE = re.compile(rf"(?:{'|'.join(PROGRAMS)}) \S.*")


class Command(NamedTuple):
    page: str
    text: str  # on one line
    inline: bool

    @property
    def words(self) -> list[str]:
        return shlex.split(self.text, comments=True)


def commands_of(page: str, text: str) -> list[Command]:
    """Every line of the blocks without a language (what is no command stands in a block of ``text``), then the code
    within sentences."""
    languages = set(re.findall(r"^```(.*)$", text, flags=re.MULTILINE))
    assert languages <= {"", "text", "yaml", "python"}, f"{page}: commands in blocks of {languages} would not be seen"
    found = []
    for block in blocks(text, ""):
        lines = block.replace("\\\n", " ").splitlines()
        found += [Command(page, line.strip(), False) for line in lines if line.strip() and not line.startswith("#")]
    prose = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    code = [" ".join(each.split()) for each in re.findall(r"(?<!`)`([^`]+)`(?!`)", prose)]
    return found + [Command(page, each, True) for each in code if INLINE.fullmatch(each)]


def blocks(text: str, language: str) -> list[str]:
    """The fenced blocks of that language; of none where it is empty."""
    every = re.findall(r"^```(\w*)\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)
    return [block for name, block in every if name == language]


def shown() -> list[Command]:
    """Each once, in the order in which they stand."""
    found: dict[str, Command] = {}
    for page in PAGES:
        for command in commands_of(str(page.relative_to(ROOT)), page.read_text(encoding="utf-8")):
            found.setdefault(command.text, command)
    return list(found.values())


def kind(command: Command) -> str | None:
    """Which of the tests it is for; None where there is none."""
    match command.words:
        case words if {"|", ">"} & set(words) or words[0] == "bcftools":
            return "pipe"
        case ["genomamba", *words] if "--ray-address" in words:
            return "cluster"
        case ["genomamba", "demo", *_]:
            return "demo"
        case ["genomamba", *_] if command.page == str(SHIPPED.relative_to(ROOT)):
            return "recipe"
        case ["genomamba", *_]:
            return "part" if command.inline and _is_part(command) else "genomamba"
        case ["python", program, *_] if re.fullmatch(r"benchmarks/\w+\.py", program):
            return "benchmark"
        case ["python", "-m", module, *_] if module.startswith("genomamba."):
            return "module"
        case ["make" | "pip" | "conda" | "snakemake" | "git" as program, *_]:
            return program
    return None


def options_in_sentences() -> set[str]:
    """Of the code that begins with one, such as ``--window-step 64``."""
    text = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    return set(re.findall(r"(?<!`)`(--[a-z][\w.-]*)[^`]*`(?!`)", text))


def of_kind(name: str) -> list[Command]:
    return [command for command in shown() if kind(command) == name]


class Parsed(Exception):
    """The arguments were accepted."""


def parsed(
    patch: pytest.MonkeyPatch, words: Sequence[str], program: str, run: Callable[..., object]
) -> argparse.Namespace:
    """What a program's own parser makes of the words; nothing behind it is run.

    Args:
        patch: whose changes end with the test.
        words: the arguments.
        program: for ``run``.
        run: `runpy.run_path` or `runpy.run_module`.
    """
    parse = argparse.ArgumentParser.parse_args

    def stop(self: argparse.ArgumentParser, *given: Any) -> Any:
        raise Parsed(parse(self, *given))

    with patch.context() as here:
        here.setattr(argparse.ArgumentParser, "parse_args", stop)
        here.setattr(sys, "argv", [program, *words])
        with pytest.raises(Parsed) as found:
            run(program, run_name="__main__")
    return found.value.args[0]


def _is_part(command: Command) -> bool:
    """Whether a block has the same command with these words among others, so that running that one runs this."""
    readme = commands_of("README.md", PAGES[0].read_text(encoding="utf-8"))
    whole = [each.words for each in readme if not each.inline]
    return any(words[:2] == command.words[:2] and set(command.words) < set(words) for words in whole)
