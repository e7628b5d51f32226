"""The command line. Only the chosen command's module is imported; torch only when the command runs."""

from __future__ import annotations

import errno
import importlib
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any, NamedTuple, NoReturn

from genomamba import __version__
from genomamba.errors import ConfigError, GenoMambaError, OutputError, Terminated
from genomamba.pipelines.option_values import refuse_typed, refuse_unread
from genomamba.pipelines.options import CommandParser, add_options, parse, typed
from genomamba.pipelines.paths import check_paths


class Command(NamedTuple):
    # below genomamba.pipelines: it has `Config` and `run(config) -> exit code`, perhaps `unread` and `ONLY_IN_FILES`
    module: str
    summary: str


COMMANDS: dict[tuple[str, ...], Command] = {
    ("demo",): Command("demo", "run the whole main job on the bundled human data"),
    ("index",): Command("index", "check a FASTA and build its memory-mapped index"),
    ("pretrain",): Command("pretrain", "train a language model on a reference genome"),
    ("plan",): Command("plan", "predict a pretraining run's peak memory and speed, and propose what fits"),
    ("finetune", "variants"): Command("finetune_variants", "train a variant classifier from a labelled VCF"),
    ("finetune", "sequences"): Command("finetune_sequences", "train a classifier or a regression of whole sequences"),
    ("finetune", "tracks"): Command("finetune_tracks", "train a model of tracks from bigWigs: a value per base"),
    ("predict",): Command("predict", "classes, values or tracks of sequences and regions"),
    ("score",): Command("score", "score a VCF into an annotated VCF"),
    ("evaluate", "variants"): Command("evaluate_variants", "measure a variant classifier on labelled variants"),
    ("evaluate", "sequences"): Command("evaluate_sequences", "measure a model of whole sequences on labelled ones"),
    ("evaluate", "tracks"): Command("evaluate_tracks", "measure a model of tracks on bigWigs"),
    ("evaluate", "regions"): Command("evaluate_regions", "bits per base of regions in a BED file"),
    ("likelihood",): Command("likelihood", "bits per base along contigs or regions, as a bigWig"),
    ("attribute",): Command("attribute", "score every substitution in a region, and draw it"),
    ("embed",): Command("embed", "hidden states of contigs or regions, pooled or per base"),
    ("generate",): Command("generate", "sequences that a causal model draws, as FASTA"),
    ("import",): Command("import_weights", "turn someone else's checkpoint into a model folder"),
    ("export",): Command("export_weights", "write a language model in someone else's format"),
    ("report",): Command("report", "one self-contained HTML page about a run"),
    ("info",): Command("info", "versions, devices, and whether the scan kernel here is right"),
}
GROUPS = {"finetune": "adapt a pretrained model", "evaluate": "measure a model"}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code: 0 done, 1 a fault of ours, 2 the user can correct it."""
    _open_what_was_closed()
    try:
        return _told(list(sys.argv[1:] if argv is None else argv))
    except BrokenPipeError:  # the reader of stdout has gone, or that of stderr
        _drop_what_is_buffered()
        return 128 + signal.SIGPIPE


def _told(words: list[str]) -> int:
    """The exit code of a command, and why, if that needs a word."""
    try:
        with _termination_raised():
            code = _run(words)
        sys.stdout.flush()  # a reader that has gone is told here, not while the interpreter ends
        return code
    except GenoMambaError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    except OSError as error:
        if error.errno != errno.ENOSPC or error.filename is not None:  # files that we write say their path
            raise
        _drop_what_is_buffered()
        full = OutputError("no space is left where the output goes", "free some, or send it elsewhere")
        print(full, file=sys.stderr)
        return full.exit_code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 128 + signal.SIGINT
    except Terminated:
        print("terminated", file=sys.stderr)
        return 128 + signal.SIGTERM


def _open_what_was_closed() -> None:
    """Streams that are None, since they were closed from the beginning, lead nowhere.

    Left None, what is printed to stderr would go to stdout, and the file that is opened next would be taken for one.
    """
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_WRONLY), "w", encoding="utf-8"))


def _drop_what_is_buffered() -> None:
    """Of the streams that cannot be written, so that nothing is told of them while the interpreter ends."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


@contextmanager
def _termination_raised() -> Iterator[None]:
    """SIGTERM raises, as Ctrl-C does, so that no temporary file is left; commands may put another handler before it."""
    if threading.current_thread() is not threading.main_thread():  # only there may handlers be set
        yield
        return
    before = signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _terminate(number: int, frame: FrameType | None) -> NoReturn:
    raise Terminated


def _run(words: list[str]) -> int:
    if words[:1] == ["--version"]:
        print(f"genomamba {__version__}")
        return 0
    name = next((name for name in COMMANDS if tuple(words[: len(name)]) == name), None)
    if name is None:
        return _help_or_complain(words)
    command = COMMANDS[name]
    module: Any = importlib.import_module(f"genomamba.pipelines.{command.module}")
    parser = CommandParser(prog=" ".join(("genomamba", *name)), description=module.__doc__)
    only_in_files: frozenset[str] = getattr(module, "ONLY_IN_FILES", frozenset())
    add_options(parser, module.Config, hidden=only_in_files)
    try:
        config = parse(parser, module.Config, words[len(name) :])
    except SystemExit as done:  # --help and --print_config
        return int(done.code or 0)
    on_the_line = typed(words[len(name) :], module.Config)
    refuse_typed(only_in_files, on_the_line)
    for option, reader in module.unread(config) if hasattr(module, "unread") else ():
        refuse_unread(config, option, reader, on_the_line)
    check_paths(config)
    return int(module.run(config))


def _help_or_complain(words: list[str]) -> int:
    group = words[0] if words and words[0] in GROUPS else None
    rest = words[1:] if group else words
    if rest and rest[0] not in ("-h", "--help", "help"):
        names = sorted({name[1 if group else 0] for name in COMMANDS if not group or name[0] == group})
        raise ConfigError(
            "no such command", f"choose from {', '.join(names)}", field=" ".join(words[: 1 + bool(group)])
        )
    parser = CommandParser(
        prog=f"genomamba {group}" if group else "genomamba", description=GROUPS.get(group or "", TAGLINE)
    )
    subcommands = parser.add_subcommands(title="commands", metavar="COMMAND", dest="command")
    for name, command in COMMANDS.items():
        if group is None or name[0] == group:
            subcommands.add_subcommand(" ".join(name[bool(group) :]), CommandParser(), help=command.summary)
    parser.print_help(sys.stdout if rest else sys.stderr)
    return 0 if rest else 2


TAGLINE = "Character-level Mamba models for genomes: pretrain, fine-tune, score."

if __name__ == "__main__":
    sys.exit(main())
