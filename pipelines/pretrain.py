"""Train a language model on a reference genome: causal, or masked and then in both directions if so configured.

Windows are drawn at random from the sequenced parts of the reference, on both strands; held-out regions are
never shown. The run folder receives the model, metrics.csv and the resolved configuration.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from genomamba.data.bed import Edge
from genomamba.errors import ConfigError
from genomamba.model.config import MaskingConfig, ModelConfig
from genomamba.pipelines import common_options as common
from genomamba.pipelines.option import option
from genomamba.pipelines.shipped import OR_SHIPPED
from genomamba.tasks.config import AlsoLog, Device, DeviceSharing, OptimizerConfig, Precision

if TYPE_CHECKING:
    from pathlib import Path

    import torch

    from genomamba.data.datamodule import ReferenceWindows
    from genomamba.data.references import Genome
    from genomamba.tasks.checkpoints import Found
    from genomamba.tasks.cost_terms import Method, Work
    from genomamba.tasks.pretrain import PretrainTask


# What may change when a run goes on: none of it has a say in the training, but that a GPU rounds other than a CPU.
# (The reference's content is checked.)
FREE = frozenset(
    {
        "reference",
        "output",
        "workers",
        "device",
        "force",
        "resume",
        "checkpoint_every",
        "keep",
        "write",
        "step_log",
        "also_log",
        "cuda_graph",
    }
)


@dataclass(frozen=True)
class Config:
    reference: list[str] = option(
        "one genome or several: FASTA, plain or bgzip, GenBank, EMBL, 2bit", short="-r", reads="file"
    )
    output: str = option("run folder to create", short="-o", writes="run")
    regions: str | None = option("BED of the regions to train on; everything when not given", None, reads="file")
    edge: Edge = common.edge()
    contig_aliases: common.ContigAliases = common.contig_aliases()
    valid: list[str] = option("regions (contig or contig:start-end, 1-based) held out for validation", [])
    test: list[str] = option("regions that training and validation never see", [])
    valid_bed: str | None = option("BED of more regions held out for validation", None, reads="file")
    test_bed: str | None = option("BED of more regions never seen", None, reads="file")
    valid_blocks: float = option("share of what is left, in blocks drawn by the seed, for validation", 0.0, at_least=0)
    block_size: int = option("bases per block of --valid-blocks", 100_000, at_least=1)
    leak_check: bool = option("also count the 31-mers that held-out sequence shares with training", False)
    mixture: list[float] = option("share of windows from each genome; by size when not given", [])
    max_n_frac: float = option("pass over windows with a larger share of N", 1.0, at_least=0, at_most=1)
    window: int = option("bases per training window", 1024, at_least=2)
    stride: int = option("windows start at multiples of it, counted from the start of a region", 1, at_least=1)
    jitter: int = option("and up to so many bases further on", 0, at_least=0)
    first_window: int | None = option("bases per window at first, doubled in stages until they are --window", None)
    short_share: float = option("share of the steps on windows shorter than --window", 0.5, at_least=0)
    batch_size: int = option("windows per step", 16, at_least=1)
    accumulate: int = option("parts that a step's windows are computed in, one after the other", 1, at_least=1)
    steps: int | None = option(
        "optimizer steps; with --max-minutes the most, otherwise 1000 when not given", None, at_least=1
    )
    max_minutes: float | None = option(
        "train for so long: the steps that fit, and with them the schedule, are measured before the run", None
    )
    validate_every: int = option("steps between validations", 250, at_least=1)
    both_strands: bool = option("draw half of the windows from the reverse strand", True)
    softmask_weight: float = option("what a lower-case (repeat-masked) base counts in the loss", 1.0, at_least=0)
    seed: int = common.seed("weights, windows and strands")
    workers: int = option("loader processes", 0, short="-@", at_least=0)
    device: Device = option("where to train", "auto")
    devices: int = option("GPUs, or processes on a CPU, that share each step's windows", 1, at_least=1)
    strategy: DeviceSharing = option("each has the whole model (ddp), or a part (fsdp); auto: ddp", "auto")
    precision: Precision = option("32-true, or bf16-mixed with fp32 master weights", "32-true")
    cuda_graph: bool = option("on a GPU, replay steps on short windows as CUDA graphs; the same bits, sooner", True)
    activation_checkpointing: bool = option("recompute activations: far less memory, a third more time", False)
    rna: bool = option("read U as T", False)
    force: bool = option("replace an existing run folder", False)
    init: str | None = option(
        f"language model whose weights training starts from: a model folder, {OR_SHIPPED}; from scratch when not "
        "given. Of --model, dropout and drop_path alone may be chosen then",
        None,
        reads="checkpoint",
    )
    objective: Literal["causal", "masked"] = option("predict the next base, or bases that are hidden", "causal")
    masking: MaskingConfig = option("which bases a masked model predicts", MaskingConfig())
    resume: bool = option(
        "go on from the last good checkpoint of the run folder, on the same kind of device to the same bits", False
    )
    checkpoint_every: int | None = option("steps between checkpoints; when not given, as validations", None, at_least=1)
    keep: int = option("checkpoints kept, besides the best", 2, at_least=1)
    write: Literal["last", "best"] = option(
        "weights that the run folder gets: those of the last step, or of the step at which validation was lowest",
        "last",
    )
    also_log: AlsoLog = option("where figures go besides metrics.csv", "nothing")
    step_log: bool = option("write each step's exact loss and its windows to steps.tsv", False)
    model: ModelConfig = option("the architecture", ModelConfig())
    optimizer: OptimizerConfig = option("AdamW or Muon, and the schedule", OptimizerConfig())


def unread(config: Config) -> Iterator[tuple[str, str]]:
    """Options, and groups of them, that this configuration does not read, and what they count with."""
    if config.resume:  # a run that goes on keeps what it began with
        return
    if config.objective != "masked":
        yield "masking", "--objective masked"
    if config.first_window is None:
        yield "short_share", "--first-window"


def run(config: Config) -> int:
    from genomamba.data.splits import leak_report
    from genomamba.model.folder import save_model
    from genomamba.model.pretrained import located
    from genomamba.pipelines.context_baseline import write_regions
    from genomamba.pipelines.initial_model import keep_origin, origin, with_initial_model
    from genomamba.pipelines.pretrain_ranks import fit, follow, made_with, prepare
    from genomamba.pipelines.run_folder import check_free, new_run, provenance, resume_run
    from genomamba.tasks.checkpoints import last_good
    from genomamba.tasks.device import check_devices, resolve_device
    from genomamba.tasks.memory_check import explained
    from genomamba.tasks.ranks import Ranks
    from genomamba.tasks.stop_signals import InterruptedTraining, StopSignals
    from genomamba.tasks.trainer import check_installed, check_precision

    check(config)
    init = None if config.init is None else str(located(config.init))
    inputs = (*config.reference, init, config.regions, config.valid_bed, config.test_bed)
    if not config.resume:
        check_free(config.output, force=config.force, inputs=inputs)
    device = resolve_device(config.device)
    check_devices(config.strategy, config.devices, device)
    check_precision(config.precision, device.type)
    check_installed(config.also_log)
    config = with_initial_model(config)
    prepared = prepare(config)
    genome, splits, windows, task = prepared
    if config.write == "best" and not len(windows.validation):
        raise ConfigError(
            "no step is the best where nothing is held out for validation",
            "hold out regions by --valid, --valid-bed or --valid-blocks, or leave this out",
            field="write",
            value=config.write,
        )
    held_out = {"valid": splits.valid, "test": splits.test}
    named = {name: intervals for name, intervals in held_out.items() if intervals}
    leaks = leak_report(genome, windows.training_regions, named, by_sequence=config.leak_check)
    check_memory(config, task, device)
    started = origin(config, task.model)
    with explained(work(config, task), method(config), device):
        config = with_steps(config, task, windows, device)
    place = (
        nullcontext(resume_run(config.output, config, FREE))
        if config.resume
        else new_run(config.output, config, force=config.force, inputs=inputs, goes_on_after=InterruptedTraining)
    )
    with place as folder:
        found = last_good(folder, task.state_dict(), made_with(genome, started)) if config.resume else None
        if started is not None:
            keep_origin(folder, started)
        if config.resume:
            print(resuming(folder, found), file=sys.stderr)
        others = Ranks(config.devices, follow, config, folder, found and found._replace(damaged=[]))
        with StopSignals() as stop, explained(work(config, task), method(config), device), others:
            trainer, checkpoints = fit(config, prepared, folder, found, stop)
        model, bits, step = task.whole_model(), checkpoints.figure, trainer.global_step
        if config.write == "best":
            assert checkpoints.lowest is not None  # there is validation, and it comes after the last step at the latest
            bits, step = checkpoints.lowest
            model.load_state_dict(checkpoints.best_weights())
        trained_on = sum(region.length for region in windows.training_regions)
        facts = {
            "reference": reference_facts(genome),
            "started_from": started,
            "trained_on_bases": trained_on,
            "held_out": {name: [str(interval) for interval in intervals] for name, intervals in held_out.items()},
            "leaks": leaks._asdict(),
            "window": config.window,
            "steps": trainer.global_step,
            "weights_of_step": step,
            "valid_bits_per_base": bits,
        }
        write_regions(folder, windows.training_regions, splits.valid)
        save_model(model, folder, card=card(config, facts, model), provenance=provenance(config, **facts))
        figure = "no validation regions" if bits is None else f"{bits:.4f} bits per base on the validation regions"
        of_all = "" if step == trainer.global_step else f" of {trainer.global_step}"
        print(f"{folder}: {figure}, after {step}{of_all} steps on {trained_on:,} bases of sequence", file=sys.stderr)
        if config.write == "best":
            print(f"the model is that after {step} steps, where validation was at its lowest", file=sys.stderr)
        if bits is not None and checkpoints.lowest is not None and checkpoints.lowest[0] < bits:
            lowest, lowest_step = checkpoints.lowest
            print(
                f"validation was at its lowest, {lowest:.4f}, after {lowest_step} steps; the model is that of the last "
                "step (--resume --write best puts that one in its place). Fewer --steps, or --model.dropout, may end "
                "lower",
                file=sys.stderr,
            )
        if task.rejected:
            print(f"{task.rejected} windows with too many N's were passed over", file=sys.stderr)
        if named:
            print(leaks, file=sys.stderr)
    return 0


def check(config: Config) -> None:
    """Raises ConfigError for options that contradict one another."""
    from genomamba.genome.alphabet import VOCAB_SIZE

    config.model.check_vocabulary(VOCAB_SIZE)
    if config.resume and config.force:
        raise ConfigError("--resume keeps the run folder and --force removes it", "give one of them", field="resume")
    if config.batch_size % (config.accumulate * config.devices):
        raise ConfigError(
            f"{config.accumulate} parts on {config.devices} devices do not divide the batch of"
            f" {config.batch_size} windows",
            "change one of them",
            field="accumulate",
            value=config.accumulate,
        )
    if config.optimizer.name == "muon" and config.strategy == "fsdp":
        raise ConfigError(
            "each device has parts of matrices, and muon needs them whole",
            "use ddp, or optimizer.name adamw",
            field="strategy",
            value=config.strategy,
        )
    if config.first_window is not None and config.first_window < 2:
        raise ConfigError("a window has at least 2 bases", "raise it", field="first_window", value=config.first_window)
    if not 0 <= config.short_share < 1:
        raise ConfigError("it must lie in [0, 1)", "change it", field="short_share", value=config.short_share)
    if config.max_minutes is not None and not config.max_minutes > 0:
        raise ConfigError("it must be more than 0", "raise it", field="max_minutes", value=config.max_minutes)


def check_memory(config: Config, task: PretrainTask, device: torch.device) -> None:
    """Raises ConfigError for a step that will not fit into the device's memory."""
    from genomamba.tasks.memory_check import check_fits

    unchecked = check_fits(work(config, task), method(config), device)
    if unchecked is not None:
        print(unchecked, file=sys.stderr)


def work(config: Config, task: PretrainTask) -> Work:
    """What a device does in a step."""
    from genomamba.tasks.cost_terms import Work

    parameters = sum(p.numel() for p in task.parameters())
    return Work(config.model, parameters, config.batch_size // config.devices, config.window, config.accumulate)


def method(config: Config) -> Method:
    """How it does it."""
    from genomamba.tasks.cost_terms import Method

    return Method(config.precision, config.activation_checkpointing)


def with_steps(config: Config, task: PretrainTask, windows: ReferenceWindows, device: torch.device) -> Config:
    """The configuration with its number of steps: given, measured, or that with which the run began."""
    from genomamba.pipelines.pretrain_ranks import DEFAULT_STEPS
    from genomamba.pipelines.run_folder import begun_with
    from genomamba.tasks.time_budget import affordable_steps

    if config.max_minutes is None:
        return replace(config, steps=config.steps or DEFAULT_STEPS)
    begun = begun_with(config.output) if config.resume else {}
    steps = begun.get("steps")
    if steps is None:
        steps = affordable_steps(task, windows, 60 * config.max_minutes, device, config.precision)
        steps = min(steps, config.steps or steps)
        print(f"{steps} steps fit into {config.max_minutes:g} minutes", file=sys.stderr)
    return replace(config, steps=steps)


def resuming(folder: Path, found: Found | None) -> str:
    """Where a resumed run goes on, and what was passed over."""
    if found is None:
        return f"{folder}: there is no checkpoint to resume from; starting at step 0"
    damaged = "".join(f"{error}\n" for error in found.damaged)
    return f"{damaged}{found.path}: resuming after step {found.step}"


def reference_facts(reference: Genome) -> dict[str, object]:
    return {"path": str(reference.path), "fingerprint": reference.fingerprint, "contigs": len(reference.contigs)}


def card(config: Config, facts: dict, model: object) -> str:
    """The model card."""
    from torch import nn

    assert isinstance(model, nn.Module)
    parameters = sum(p.numel() for p in model.parameters())
    bits = facts["valid_bits_per_base"]
    started = f", from the weights of `{config.init}`" if config.init else ""
    step = facts["weights_of_step"]
    earlier = (
        "" if step == facts["steps"] else f"\n  The weights are those after {step} steps, where validation was best."
    )
    return f"""# {config.objective.capitalize()} language model

{parameters:,} parameters ({config.model.layers}, d_model {config.model.d_model}, {config.model.n_layer} layers,
d_state {config.model.d_state}). One token is one base; ids are those of `genomamba.genome.alphabet`.

- Trained on {facts["trained_on_bases"]:,} bases of `{facts["reference"]["path"]}`
  (fingerprint `{facts["reference"]["fingerprint"]}`), {facts["steps"]} steps of {config.batch_size} windows of
  {config.window} bases, seed {config.seed}{started}.{earlier}
- Held out for validation: {", ".join(facts["held_out"]["valid"]) or "nothing"};
  never seen: {", ".join(facts["held_out"]["test"]) or "nothing"}.
- Validation: {"not measured" if bits is None else f"{bits:.4f} bits per base"}
  (uniform guessing over A, C, G, T is 2).

It is a model of sequence, not of disease; it has not been evaluated for clinical use.
"""
