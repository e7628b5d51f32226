"""What a loader's processes do first."""

from __future__ import annotations

import gc
import signal


def begin_worker(worker: int) -> None:
    """For ``worker_init_fn``: a forked process leaves alone what it inherits.

    Inherited garbage may hold CUDA tensors, and freeing those in a forked process ends it. Ctrl-C, and `kill` on a
    process group, reach workers too, which must live until the process that asked for them is done with them.
    """
    gc.freeze()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
