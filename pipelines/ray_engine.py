"""The same scoring on Ray Data: actors, here or on a cluster's machines, score shards, and this process keeps them.

Whatever order shards come back in, and however often one is scored again because a worker died, each is kept once
under its number; the output is then put together as if they had been scored here.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

from genomamba.data.vcf import VcfRecord
from genomamba.errors import ConfigError, GenoMambaError
from genomamba.pipelines.shard_scorer import ScoreRecipe
from genomamba.pipelines.shard_worker import RemoteError
from genomamba.scoring.batch_size import Halved

if TYPE_CHECKING:
    import numpy as np

SHARDS_AT_ONCE = 256  # are handed to Ray together: what the driver's memory holds of the input

PATIENCE = 10  # seconds for a cluster to answer


class Actor:
    """A `ShardScorer` as Ray Data calls it."""

    def __init__(self, recipe: ScoreRecipe, device: str) -> None:
        import torch

        self._score = recipe.make(torch.device(device))

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, Any]:
        scores, errors = [], []
        for text in batch["records"]:
            records = [
                VcfRecord(line, contig, pos, identifier, ref, tuple(alts), info, whole)
                for line, contig, pos, identifier, ref, alts, info, whole in json.loads(text)
            ]
            try:
                scores.append(json.dumps(self._score(records)))
                errors.append("")
            except GenoMambaError as error:  # not raised here: Ray would try again, and wrap it
                scores.append("")
                errors.append(json.dumps([str(error), error.exit_code]))
        halved = json.dumps(self._score.halved)
        return {"number": batch["number"], "scores": scores, "error": errors, "halved": [halved] * len(scores)}


def score_on_ray(
    recipe: ScoreRecipe,
    shards: Iterable[tuple[int, Sequence[VcfRecord]]],
    save: Callable[[int, Any, Halved | None], None],
    *,
    device: str,
    address: str | None,
    actors: int | None,
) -> None:
    """Scores shards and hands number, scores in their plain form, and `Halved` of each to ``save``, in any order.

    Args:
        recipe: what actors load.
        shards: number and records of each that is not done.
        save: called in this process.
        device: each actor's, ``cpu`` or ``cuda``.
        address: of a running cluster; None starts one on this machine and ends it.
        actors: how many; one per CPU or GPU of the cluster when not given.

    Raises:
        ConfigError: ray is not installed, or the cluster cannot be reached.
        GenoMambaError: what an actor raised, or workers that die again and again.
    """
    ray = _ray()
    _begin(ray, address)
    try:
        ray.data.DataContext.get_current().enable_progress_bars = False
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        on_gpu = device == "cuda"
        kind = "GPU" if on_gpu else "CPU"
        count = actors or max(1, int(ray.cluster_resources().get(kind, 1)))
        waiting = iter(shards)
        while group := list(islice(waiting, SHARDS_AT_ONCE)):
            rows = [{"number": number, "records": json.dumps(records)} for number, records in group]
            scored = ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(
                Actor,
                fn_constructor_args=(recipe, device),
                batch_size=1,
                compute=ray.data.ActorPoolStrategy(size=min(count, len(rows))),  # which replaces actors that die
                num_cpus=1,
                num_gpus=1 if on_gpu else 0,
            )
            for row in scored.iter_rows():
                if row["error"]:
                    raise RemoteError(*json.loads(row["error"]))
                halved = json.loads(row["halved"])
                save(int(row["number"]), json.loads(row["scores"]), halved and Halved(*halved))
    except ray.exceptions.RayError as error:
        raise RemoteError(
            f"Ray gave up: {str(error).splitlines()[0]}; --resume goes on with what is done", 1
        ) from error
    finally:
        ray.shutdown()


def _begin(ray: Any, address: str | None) -> None:
    """Starts or joins a cluster."""
    handler = signal.getsignal(signal.SIGTERM)
    try:
        if address is not None and ":" in address and "/" not in address:
            host, _, port = address.rpartition(":")
            socket.create_connection((host, int(port)), timeout=PATIENCE).close()  # Ray itself tries for minutes
        dashboard = False if address is None else None
        ray.init(address or "local", include_dashboard=dashboard, log_to_driver=False, logging_level="ERROR")
    except (OSError, RuntimeError, ValueError) as error:
        raise ConfigError(
            f"Ray cannot be started or reached there ({str(error).splitlines()[0]})",
            "check the address",
            field="ray_address",
            value=address,
        ) from error
    finally:
        signal.signal(signal.SIGTERM, handler)  # Ray puts one that exits at once


def _ray() -> Any:
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # its C++ side has words on stderr that nobody can act on
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise ConfigError(
            "Ray is not installed", "run `pip install -e '.[ray]'`", field="engine", value="ray"
        ) from error
    return ray
