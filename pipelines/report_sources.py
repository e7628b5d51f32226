"""What a classifier's run folder, and that of the model that it came from, can still tell a report."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any, NamedTuple

from genomamba.errors import CheckpointError, UserError
from genomamba.model.folder import PROVENANCE, weights_fingerprint
from genomamba.model.folder_files import WEIGHTS
from genomamba.pipelines.json_shape import EVERY, NUMBER, check_shape
from genomamba.pipelines.model_provenance import REMEDY, read_provenance
from genomamba.pipelines.run_folder import METRICS

Rows = list[dict[str, float]]  # of metrics.csv; a row has what was logged at its step

# What the page shows, and so what must be there. A file may say more.
CLASSIFIER = {
    "configuration": {"epochs": int, "window": int, "seed": int},
    "versions": {EVERY: str},
    "reference": {"path": str, "fingerprint": str},
    "pretrained": ({"path": str, "weights": str}, None),
    "method": str,
    "split": {"train": [str], "valid": [str]},
    "counts": {"train": int},
    "parameters": int,
}
PRETRAINING = {
    "configuration": {"batch_size": int, "window": int, "seed": int, "reference": [str]},
    "steps": int,
    "trained_on_bases": int,
    "valid_bits_per_base": (*NUMBER, None),
}
_MAYBE = (*NUMBER, None)
_FIGURE = [_MAYBE, _MAYBE, _MAYBE]  # with the ends of its interval
_CURVE = [[NUMBER], [NUMBER]]
EVALUATION = {
    "weights": str,
    "genes": [str],
    "variants": int,
    "positives": int,
    "left_out": {EVERY: int},
    "overall": {"AUROC": _FIGURE, EVERY: _FIGURE},
    "consequence_only": {"AUROC": _FIGURE, EVERY: _FIGURE},
    "zero_shot": {"AUROC": _FIGURE},
    "within": [
        {
            "stratum": str,
            "variants": int,
            "positives": int,
            "AUROC": _FIGURE,
            "AUPRC": _FIGURE,
            "zero_shot_AUROC": _FIGURE,
        }
    ],
    "curves": {
        "model": {"roc": _CURVE, "pr": _CURVE},
        "consequence_only": {"roc": _CURVE, "pr": _CURVE},
        "reliability": _CURVE,
    },
}


class Curve(NamedTuple):
    """What there is to draw of a training."""

    rows: Rows | None
    missing: str = ""  # why there is nothing


class Pretraining(NamedTuple):
    """Of the model that a classifier came from."""

    facts: dict[str, Any] | None  # its provenance
    missing: str  # why there is none
    curve: Curve


def read_evaluation(path: Path) -> dict[str, Any]:
    """The JSON of `evaluate variants`; raises UserError where it cannot be read, or lacks what the page shows."""
    remedy = "give the file that `genomamba evaluate variants -o` wrote"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"it cannot be read ({error})", remedy, file=path) from error
    if not isinstance(found, dict):
        raise UserError("it is not what `genomamba evaluate` writes", remedy, file=path)
    check_shape(found, EVALUATION, path, remedy)
    curves = found["curves"]
    every = {
        f"{model}.{kind}": curves[model][kind] for model in ("model", "consequence_only") for kind in ("roc", "pr")
    }
    for name, (x, y) in (every | {"reliability": curves["reliability"]}).items():
        if len(x) != len(y):
            raise UserError("its two lists differ in length", remedy, file=path, field=f"curves.{name}")
    return found


def finetuning_curve(folder: Path, provenance: dict[str, Any]) -> Curve:
    """Of the classifier in ``folder``."""
    if provenance["method"] == "probe":
        return Curve(None, "a probe is not trained in steps")
    return _curve(folder)


def pretraining(provenance: dict[str, Any]) -> Pretraining:
    """As far as it was one, and its folder still lies where it was.

    Args:
        provenance: of the classifier.

    Raises:
        UserError: what lies there cannot be read.
    """
    source = provenance["pretrained"]
    if source is None:
        return _without("the model was trained from scratch: there was no pretraining")
    folder = Path(source["path"])
    if not (folder / PROVENANCE).is_file() or not (folder / WEIGHTS).is_file():
        return _without(f"the pretrained model is no longer at {folder}")
    if weights_fingerprint(folder) != source["weights"]:
        return _without(f"there is another model at {folder} now")
    facts = read_provenance(str(folder))
    if "imported_from" in facts:
        return _without(f"the pretrained model was imported from {facts['imported_from']}, not trained here")
    check_shape(facts, PRETRAINING, folder / PROVENANCE, REMEDY, error=CheckpointError)
    return Pretraining(facts, "", _curve(folder))


def _without(missing: str) -> Pretraining:
    return Pretraining(None, missing, Curve(None, missing))


_RESTORE = "restore the file, or remove it for a page without its curve"


def _curve(folder: Path) -> Curve:
    path = folder / METRICS
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            reader = csv.DictReader(stream)
            rows = [_figures(row, path, reader.line_num) for row in reader]
    except FileNotFoundError:
        return Curve(None, f"{folder.name} came without its {METRICS}")
    except (OSError, ValueError, csv.Error) as error:
        why = getattr(error, "strerror", None) or "it is no table"
        raise UserError(f"it cannot be read ({why})", _RESTORE, file=path) from error
    return Curve(rows) if rows else Curve(None, f"{path} has no rows")


def _figures(row: dict[str, str | None], path: Path, line: int) -> dict[str, float]:
    """What was logged at a step; the cells of other figures are empty."""
    found: dict[str, float] = {}
    for name, text in row.items():
        try:
            if text:
                found[name] = float(text)
        except (TypeError, ValueError):  # the former where a row has more cells than there are columns
            raise UserError(
                "expected a number", _RESTORE, file=path, line=line, field=name or "step", value=text
            ) from None
    if not math.isfinite(found.get("step", math.nan)):
        raise UserError("the row names no step", _RESTORE, file=path, line=line, field="step")
    return found
