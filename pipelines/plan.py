"""Predict what a pretraining run needs: peak memory and speed, and the ways of doing the same that fit.

Takes the presets of `pretrain`, and those of its options that have a say; nothing is read and nothing is trained. The
coefficients behind the figures were measured, on one device each, by `benchmarks/plan_fit.py`.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass

from genomamba.model.config import MaskingConfig
from genomamba.pipelines import common_options as common
from genomamba.pipelines import pretrain
from genomamba.pipelines.option import option
from genomamba.tasks.config import OptimizerConfig

#: options of `pretrain` that have no say in memory and speed, or of which every value is tried; a preset names them too
ONLY_IN_FILES = frozenset(
    """edge contig_aliases valid test valid_blocks block_size leak_check mixture max_n_frac stride jitter first_window
    short_share accumulate steps max_minutes validate_every both_strands softmask_weight seed workers cuda_graph
    activation_checkpointing rna masking resume checkpoint_every keep write also_log step_log strategy
    optimizer""".split()
)
COLUMNS = ("accumulate", "activation_checkpointing", "peak_GiB", "Mbp_per_s", "fits")


@dataclass(frozen=True)
class Config(pretrain.Config):
    # the data need not be there, nor be taken out of a command line of `pretrain`
    reference: list[str] = option("not looked at", [], short="-r")
    regions: str | None = option("not looked at", None)
    valid_bed: str | None = option("not looked at", None)
    test_bed: str | None = option("not looked at", None)
    masking: MaskingConfig = option("of `pretrain`; only a file may name these", MaskingConfig())
    optimizer: OptimizerConfig = option("of `pretrain`; only a file may name these", OptimizerConfig())
    output: str = option(
        "JSON to write; - is a table on stdout", "-", short="-o", writes="file", stdout=True, formats=common.JSON
    )
    on: str | None = option(
        "a device whose costs are known, such as cpu or 'NVIDIA H200'; this one's if not given", None
    )
    memory_gib: float | None = option("memory that may be used; what --device has when not given", None)


def run(config: Config) -> int:
    from genomamba.errors import ConfigError
    from genomamba.files import refuse_existing, whole_file
    from genomamba.pipelines.initial_model import with_initial_model
    from genomamba.pipelines.pretrain_ranks import make_task
    from genomamba.tasks.cost_terms import Method, Work
    from genomamba.tasks.costs import MARGIN, known_devices, largest_window, plans, read_costs
    from genomamba.tasks.device import resolve_device
    from genomamba.tasks.memory_check import GIB, as_options, device_name, free_bytes

    if config.output != "-":
        refuse_existing(config.output, force=config.force)
    name, memory = config.on, config.memory_gib
    if memory is not None and not memory > 0:
        raise ConfigError("it must be more than 0", "raise it", field="memory_gib", value=memory)
    if name is None:
        device = resolve_device(config.device)
        name = device_name(device)
        memory = free_bytes(device) / GIB if memory is None else memory
    costs = read_costs(name)
    if costs is None:
        raise ConfigError(
            "no costs are known for this device",
            f"choose --on from {', '.join(known_devices()) or 'none'}, or measure them with benchmarks/plan_fit.py",
            field="on",
            value=name,
        )
    free = costs.memory_bytes if memory is None else memory * GIB
    config = with_initial_model(config)
    model = make_task(config).model
    parameters = sum(p.numel() for p in model.parameters())
    work = Work(config.model, parameters, config.batch_size // config.devices, config.window)
    found = list(plans(costs, work, config.precision, free))
    if not found:
        measured = sorted({method.precision for method in costs.methods})
        raise ConfigError(
            f"no costs were measured on {name} in {config.precision} for such a model",
            f"they are known for causal models of mamba layers in {' and '.join(measured)}; change it, --on or"
            " --precision",
            field="model.layers",
            value=config.model.layers,
        )
    fitting = [plan for plan in found if plan.fits]
    best = min(fitting, key=lambda plan: plan.cost.seconds, default=None)
    bases = config.batch_size // config.devices * config.window
    windows = {
        again: largest_window(costs, work, Method(config.precision, again), free)
        for again in sorted({plan.activation_checkpointing for plan in found})
    }
    rows = [
        (
            plan.parts,
            plan.activation_checkpointing,
            round(plan.cost.peak_bytes / GIB, 3),
            round(bases / plan.cost.seconds / 1e6, 3),
            plan.fits,
        )
        for plan in found
    ]
    if config.output == "-":
        print("\t".join(COLUMNS))
        for row in rows:
            print("\t".join(str(cell) for cell in row))
    else:
        with whole_file(config.output) as path:
            ways = [dict(zip(COLUMNS, row, strict=True)) for row in rows]
            facts = {"device": costs.device, "memory_GiB": free / GIB, "parameters": parameters, "ways": ways}
            path.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    print(
        f"{costs.device}, {free / GIB:.1f} GiB, of which a prediction may take 1/{MARGIN}; {config.precision};"
        f" {parameters:,} parameters, {config.batch_size} windows of {config.window:,} bases per step",
        file=sys.stderr,
    )
    for again, length in windows.items():
        print(f"longest window{' with --activation-checkpointing' if again else ''}: {length:,} bases", file=sys.stderr)
    if best is None:
        print("none of these fits: take a shorter window or a smaller model", file=sys.stderr)
    else:
        print(f"fastest that fits: {as_options(best.parts, best.activation_checkpointing)}", file=sys.stderr)
    return 0
