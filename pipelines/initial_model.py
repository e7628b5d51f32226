"""Training that goes on from the weights of another model, instead of random ones."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from genomamba.errors import CheckpointError, ConfigError
from genomamba.files import whole_file
from genomamba.interop.loading import load_any_model
from genomamba.model.backbone import CausalLM, MaskedLM
from genomamba.model.config import ModelConfig
from genomamba.model.folder import model_fingerprint
from genomamba.model.pretrained import SHIPPED, located
from genomamba.pipelines.run_folder import begun_with
from genomamba.pipelines.shipped import model_folder, tell_what_it_saw
from genomamba.tasks.checkpoints import any_saved

if TYPE_CHECKING:
    from genomamba.pipelines.pretrain import Config

AnyConfig = TypeVar("AnyConfig", bound="Config")
ORIGIN = "started_from.json"
REGULARISATION = ("dropout", "drop_path")


def with_initial_model(config: AnyConfig) -> AnyConfig:
    """The configuration with the architecture of the model that ``--init`` names, if it names one.

    But for `REGULARISATION`, which has no weights: it is the run's own.

    Raises:
        CheckpointError: the model cannot be read, or is not of the objective that is to be trained.
        ConfigError: another architecture is asked for.
    """
    if config.init is None:
        return config
    goes_on = _has_its_weights(config)
    if goes_on:
        own = ModelConfig(**begun_with(config.output)["model"])
    else:
        folder = model_folder(config.init)
        if config.init == SHIPPED:
            tell_what_it_saw()
        model = load_any_model(folder)
        if not isinstance(model, CausalLM if config.objective == "causal" else MaskedLM):
            raise CheckpointError(
                f"it is no {config.objective} language model", "give another --init or --objective", file=folder
            )
        own = model.config
    architecture = _with_regularisation(own, config.model)
    for name in REGULARISATION:
        if not goes_on and (theirs := getattr(own, name)) and not getattr(architecture, name):
            print(f"model.{name}=0: the model of --init has {theirs}, which is not taken over", file=sys.stderr)
    return replace(config, model=architecture)


def _with_regularisation(own: ModelConfig, asked: ModelConfig) -> ModelConfig:
    """``own``, with the regularisation that is asked for; raises ConfigError where anything else is."""
    default, chosen = ModelConfig(), {name: getattr(asked, name) for name in REGULARISATION}
    merged = replace(own, **chosen)
    if asked not in (replace(default, **chosen), merged):  # the latter is what the run.yaml of such a run says
        others = [field.name for field in fields(ModelConfig) if field.name not in REGULARISATION]
        wrong = next((n for n in others if getattr(asked, n) not in (getattr(default, n), getattr(own, n))), None)
        raise ConfigError(
            f"the model of --init has its own, but for {' and '.join(REGULARISATION)}",
            "leave out one of them",
            field="model" if wrong is None else f"model.{wrong}",
            value=None if wrong is None else getattr(asked, wrong),
        )
    return merged


def initial_model(config: Config) -> CausalLM | MaskedLM:
    """With the weights of ``--init``, or random ones; ``config`` is as `with_initial_model` gives it."""
    if config.init is None or _has_its_weights(config):
        return CausalLM(config.model) if config.objective == "causal" else MaskedLM(config.model)
    model = load_any_model(config.init)
    assert isinstance(model, CausalLM | MaskedLM)
    if model.config != config.model:  # in regularisation, which has no weights
        theirs, model = model, type(model)(config.model)
        model.load_state_dict(theirs.state_dict())
    return model.train()


def origin(config: Config, model: CausalLM | MaskedLM) -> dict[str, str] | None:
    """Where the weights come from, for the provenance; None where they are random.

    Args:
        config: of the run.
        model: as `initial_model` gave it.

    Raises:
        CheckpointError: a run that goes on began with other weights.
    """
    if config.init is None:
        return None
    kept = kept_origin(Path(config.output)) if config.resume else None
    if kept is not None and _has_its_weights(config):
        return kept
    folder = located(config.init)  # which a name on the hub is not
    found = {
        "path": os.path.abspath(folder) if folder.exists() else config.init,
        "weights": model_fingerprint(model),
    }
    if kept is not None and kept["weights"] != found["weights"]:
        raise CheckpointError(
            f"the run began with the weights {kept['weights']}",
            "restore them, or start a new run",
            file=config.init,
            field="weights",
            value=found["weights"],
        )
    return kept or found


def keep_origin(folder: Path, found: dict[str, str]) -> None:
    """Writes it into the run folder, for the run to go on without the model that it started from."""
    with whole_file(folder / ORIGIN) as path:
        path.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


def kept_origin(folder: Path) -> dict[str, str] | None:
    """What `keep_origin` wrote; None where it did not.

    Raises:
        CheckpointError: the file is damaged.
    """
    path = folder / ORIGIN
    if not path.is_file():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return {"path": str(found["path"]), "weights": str(found["weights"])}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"it cannot be read ({error!r})", "remove it: --init is then read again", file=path
        ) from error


def _has_its_weights(config: Config) -> bool:
    """Whether the run goes on from a checkpoint, so that what ``--init`` names is not needed."""
    folder = Path(config.output)
    return config.resume and any_saved(folder) and (folder / ORIGIN).is_file()
