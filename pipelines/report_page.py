"""The report's page: pictures as inline SVG, figures as tables, no file beside it."""

from __future__ import annotations

import html
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jinja2
import matplotlib

matplotlib.use("svg")

from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from genomamba import __version__
from genomamba.errors import UserError
from genomamba.model.folder import weights_fingerprint
from genomamba.pipelines.evaluate_variants import note
from genomamba.pipelines.model_provenance import read_provenance
from genomamba.pipelines.report_sources import CLASSIFIER, Curve, Rows, finetuning_curve, pretraining, read_evaluation

INK, ACCENT, QUIET = "#1b2a33", "#0b7a75", "#9aa5ab"
STYLE: dict[Any, Any] = {
    "font.size": 9.5,
    "axes.edgecolor": QUIET,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "svg.hashsalt": "genomamba",
}


def render(model_folder: str, evaluation_file: str) -> str:
    """The page as one string.

    Raises:
        UserError: a file of the classifier, or the evaluation, is missing or is not what its command writes.
    """
    folder = Path(model_folder)
    provenance = read_provenance(model_folder, CLASSIFIER)
    evaluation = read_evaluation(Path(evaluation_file))
    if evaluation["weights"] != weights_fingerprint(folder):
        raise UserError(
            f"its figures are not of the model in {folder}",
            "run `genomamba evaluate variants -o` with it",
            file=evaluation_file,
        )
    before = pretraining(provenance)
    pictures = {
        "pretraining": _training_picture("pretraining", before.curve, _pretraining_curve),
        "finetuning": _training_picture("fine-tuning", finetuning_curve(folder, provenance), _finetuning_curve),
        "roc": _picture(lambda ax: _roc(ax, evaluation)),
        "pr": _picture(lambda ax: _precision_recall(ax, evaluation)),
        "reliability": _picture(lambda ax: _reliability(ax, evaluation)),
    }
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=jinja2.StrictUndefined
    )
    environment.filters["figure"] = format_figure
    return environment.get_template("report.html.j2").render(
        version=__version__,
        provenance=provenance,
        pretraining=before,
        evaluation=evaluation,
        note=note(evaluation),
        pictures=pictures,
    )


def format_figure(figure: list[float | None]) -> str:
    """``0.812 [0.800, 0.824]`` or NA, as `genomamba evaluate` prints it."""
    value, low, high = figure
    if value is None:
        return "NA"
    return f"{value:.3f}" if low is None or high is None else f"{value:.3f} [{low:.3f}, {high:.3f}]"


def _series(rows: Rows, name: str) -> tuple[list[int], list[float]]:
    kept = [(int(row["step"]) + 1, row[name]) for row in rows if name in row]
    return [step for step, _ in kept], [value for _, value in kept]


def _training_picture(name: str, curve: Curve, draw: Callable[[Axes, Rows], None]) -> str:
    """The curve, or a line that says why there is none."""
    rows = curve.rows
    if rows is None:
        return f'<p class="lead">no curve of the {name}: {html.escape(curve.missing)}</p>'
    return _picture(lambda axes: draw(axes, rows))


def _picture(draw: Callable[[Axes], None]) -> str:
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(4.6, 3.3), layout="constrained")
        draw(axes)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
        plt.close(figure)
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def _pretraining_curve(axes: Axes, rows: Rows) -> None:
    axes.plot(*_series(rows, "train_bits_per_base"), color=QUIET, linewidth=1, label="training")
    axes.plot(*_series(rows, "valid_bits_per_base"), color=ACCENT, marker="o", markersize=4, label="validation")
    axes.axhline(2, color=INK, linewidth=0.8, linestyle=":")
    axes.set(title="Pretraining", xlabel="step", ylabel="bits per base")
    axes.annotate(
        "uniform guessing", (1, 2), (0, 3), xycoords=("axes fraction", "data"), textcoords="offset points", ha="right"
    )
    axes.legend()


def _finetuning_curve(axes: Axes, rows: Rows) -> None:
    axes.plot(*_series(rows, "train_loss"), color=QUIET, linewidth=1, label="training loss")
    axes.plot(*_series(rows, "valid_loss"), color=INK, marker="o", markersize=4, label="validation loss")
    axes.plot(*_series(rows, "valid_auroc"), color=ACCENT, marker="s", markersize=4, label="validation AUROC")
    axes.set(title="Fine-tuning", xlabel="step", ylim=(0, None))
    axes.legend()


def _roc(axes: Axes, evaluation: dict[str, Any]) -> None:
    for name, curve, color in _curves(evaluation, "roc"):
        axes.plot(*curve, color=color, linewidth=1.6, label=name)
    axes.plot([0, 1], [0, 1], color=QUIET, linewidth=0.8, linestyle=":")
    axes.set(title="ROC", xlabel="false positive rate", ylabel="true positive rate", xlim=(0, 1), ylim=(0, 1.01))
    axes.legend(loc="lower right")


def _precision_recall(axes: Axes, evaluation: dict[str, Any]) -> None:
    for name, curve, color in _curves(evaluation, "pr"):
        axes.plot(*curve, color=color, linewidth=1.6, label=name)
    prevalence = evaluation["positives"] / evaluation["variants"]
    axes.axhline(prevalence, color=QUIET, linewidth=0.8, linestyle=":")
    axes.set(title="Precision and recall", xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.01))
    axes.legend(loc="lower left")


def _curves(evaluation: dict[str, Any], kind: str) -> list[tuple[str, list[list[float]], str]]:
    curves = evaluation["curves"]
    return [
        ("this model", curves["model"][kind], ACCENT),
        ("consequence class alone", curves["consequence_only"][kind], INK),
    ]


def _reliability(axes: Axes, evaluation: dict[str, Any]) -> None:
    axes.plot([0, 1], [0, 1], color=QUIET, linewidth=0.8, linestyle=":")
    axes.plot(*evaluation["curves"]["reliability"], color=ACCENT, marker="o", markersize=4)
    axes.set(
        title="Calibration", xlabel="mean predicted probability", ylabel="share of positives", xlim=(0, 1), ylim=(0, 1)
    )
