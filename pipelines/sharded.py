"""How a command works out an output shard by shard: here or on several devices, and what a stop says."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import count, islice
from typing import Any, Literal, NamedTuple, Protocol, TypeVar

import torch

from genomamba import __version__
from genomamba.errors import GenoMambaError, Terminated
from genomamba.pipelines.device_engine import work_on_devices
from genomamba.pipelines.shard_worker import Recipe
from genomamba.pipelines.shards import Facts, Shards
from genomamba.progress import progress_bar
from genomamba.scoring.batch_size import Halved
from genomamba.tasks.device import check_devices

Part = TypeVar("Part")
Result = TypeVar("Result")
Save = Callable[[int, Any, Halved | None], None]


class ShardOptions(Protocol):
    """What a command must know to keep shards."""

    @property
    def output(self) -> str: ...
    @property
    def resume(self) -> bool: ...
    @property
    def force(self) -> bool: ...


class Amounts(NamedTuple):
    """What there is to do."""

    shards: Sequence[int]  # how much is in each
    done: str  # as it is called once it is done, such as "records scored"


class InterruptedWork(GenoMambaError):
    """A signal stopped the run; what is done is kept. The exit code is 128 + the signal's number."""

    def __init__(self, output: str, stop: BaseException, amounts: Amounts, shards: Shards) -> None:
        number = signal.SIGINT if isinstance(stop, KeyboardInterrupt) else signal.SIGTERM
        done = sum(amounts.shards[each] for each in shards.done())
        super().__init__(
            f"{output}: stopped by {number.name} with {done:,} of {sum(amounts.shards):,} {amounts.done}; "
            "the same command with --resume goes on"
        )
        self.exit_code = 128 + number


@contextmanager
def kept(options: ShardOptions, facts: Callable[[], Facts], amounts: Amounts) -> Iterator[Shards | None]:
    """Where finished shards are kept while the output is made, as `Shards`; None for stdout, which keeps none.

    Args:
        options: of the command.
        facts: gives everything that has a say in the output's bytes; where nothing is kept, nobody asks.
        amounts: what there is to do.

    Raises:
        InterruptedWork: SIGTERM or Ctrl-C came.
        ConfigError, OutputError: as `Shards`.
    """
    if options.output == "-":
        yield None
        return
    with Shards(options.output, facts(), resume=options.resume, force=options.force) as shards:
        try:
            yield shards
        except (KeyboardInterrupt, Terminated) as stop:
            raise InterruptedWork(options.output, stop, amounts, shards) from stop


def in_order(
    shards: Shards | None,
    parts: Iterable[tuple[int, Part]],
    work: Callable[[Part], Result],
    *,
    pack: Callable[[Result], Any] = lambda result: result,
    unpack: Callable[[Any], Result] = lambda plain: plain,
) -> Iterator[tuple[Part, Result]]:
    """Each part with its result, which is taken from where it is kept, or worked out here and kept.

    Args:
        shards: where; None keeps none.
        parts: numbers of shards, and what is in each.
        work: gives the result of a part.
        pack: turns a result into what `Shards.save` takes.
        unpack: its inverse.
    """
    for number, part in parts:
        plain = None if shards is None else shards.load(number)
        if plain is not None:
            yield part, unpack(plain)
            continue
        result = work(part)
        if shards is not None:
            packed = pack(result)
            found = shards.save(number, packed)
            if found is not packed:  # a file has moved
                result = unpack(found)
        yield part, result


def cut(items: Iterable[Part], size: int) -> Iterator[tuple[int, list[Part]]]:
    """Shards, numbered from 0; the last may be smaller."""
    waiting = iter(items)
    for number in count():
        chunk = list(islice(waiting, size))
        if not chunk:
            return
        yield number, chunk


def sizes(items: int, size: int) -> list[int]:
    """How many are in each of those."""
    return [min(size, items - start) for start in range(0, items, size)]


def missing_elsewhere(
    shards: Shards,
    parts: Iterable[tuple[int, Any]],
    total: int,
    where: str,
    engine: Callable[[Iterable[tuple[int, Any]], Save, int], None],
) -> Halved | None:
    """Has every shard that is not done worked out by other processes, with a bar.

    Args:
        shards: where results are kept.
        parts: numbers of all shards, and what is in each.
        total: how many there are.
        where: for the bar.
        engine: is given those that are missing, what to call with each result, and how many are missing.

    Returns:
        The smallest of their batches, where they did not fit the memory.
    """
    done = shards.done()
    if len(done) == total:
        return None
    smaller: list[Halved] = []
    with progress_bar() as bar:
        task = bar.add_task(where, total=total, completed=len(done), note="shards")

        def save(number: int, result: Any, halved: Halved | None) -> None:
            shards.save(number, result)
            if halved is not None:
                smaller.append(halved)
            bar.advance(task)

        engine(((number, part) for number, part in parts if number not in done), save, total - len(done))
    return min(smaller, key=lambda halved: halved.left, default=None)


def missing_on_devices(
    shards: Shards, parts: Iterable[tuple[int, Any]], total: int, recipe: Recipe, devices: Sequence[str]
) -> Halved | None:
    """The same by a process for each device, as torch calls them."""

    def engine(missing: Iterable[tuple[int, Any]], save: Save, left: int) -> None:
        work_on_devices(recipe, missing, save, devices[:left])

    return missing_elsewhere(shards, parts, total, f"on {len(devices)} devices", engine)


def each_device(wanted: int | Literal["auto"], device: torch.device) -> list[str]:
    """The devices that are asked for, as torch calls them; a CPU stands there once per process.

    Raises:
        ConfigError: more GPUs than there are.
    """
    if device.type == "cpu":
        return ["cpu"] * (1 if wanted == "auto" else wanted)
    number = torch.cuda.device_count() if wanted == "auto" else wanted
    check_devices("auto", number, device)
    return [f"cuda:{index}" for index in range(number)]


def fixed_size(batch_size: int | Literal["auto"]) -> int | None:
    """As scorers take it: None where it is planned."""
    return None if batch_size == "auto" else batch_size


def surroundings(device: torch.device) -> dict[str, str]:
    """Facts of every command: what has a say in rounding, whatever it does."""
    return {"genomamba": __version__, "torch": torch.__version__, "device": device.type}


def say_halved(halved: Halved | None, unit: str = "") -> None:
    """What became of batches that did not fit the memory, on stderr; ``unit`` is what they are counted in."""
    if halved is not None:
        print(
            f"batches of {halved.planned}{unit} did not fit the memory; they were halved to {halved.left}",
            file=sys.stderr,
        )
