"""The page is made of every variant classifier; what is not there to show is left out, and a line says why."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from world import RunCli, World

from genomamba.model.pretrained import shipped_model

SPLITS = "--train AAA1 BBB2 --valid CCC3 --test DDD4 --window 32 --epochs 1 --device cpu".split()
BITS = "bits per base, validation regions"


def classifier(run_cli: RunCli, world: World, out: Path, *how: object) -> Path:
    result = run_cli("finetune", "variants", "-r", world.reference, "-i", world.labelled, "-o", out, *SPLITS, *how)
    assert result.code == 0, result.err
    return out


def page_of(run_cli: RunCli, world: World, model: Path, folder: Path) -> str:
    """With the figures of the evaluation, which every page has."""
    evaluation, page = folder / "evaluation.json", folder / "report.html"
    words = ("evaluate", "variants", "-r", world.reference, "-i", world.labelled, "-m", model, "-o", evaluation)
    assert run_cli(*words, "--device", "cpu").code == 0
    shown = run_cli("report", "-m", model, "-e", evaluation, "-o", page)
    assert (shown.code, shown.err) == (0, "")
    html = page.read_text()
    assert run_cli("report", "-m", model, "-e", evaluation, "-o", "-").out == html
    value, low, high = json.loads(evaluation.read_text())["overall"]["AUROC"]
    assert f"{value:.3f} [{low:.3f}, {high:.3f}]" in html
    assert f"<code>{world.reference}</code>, fingerprint" in html
    return html


def test_of_the_model_that_ships_there_are_figures_and_no_curve(world: World, run_cli: RunCli, tmp_path: Path) -> None:
    model = classifier(run_cli, world, tmp_path / "c", "-m", "shipped", "--method", "head")
    html = page_of(run_cli, world, model, tmp_path)
    assert f"no curve of the pretraining: {shipped_model().name} came without its metrics.csv" in html
    made = json.loads((shipped_model() / "provenance.json").read_text())
    assert BITS in html
    assert f"{made['valid_bits_per_base']:.4f}" in html
    assert f"{made['trained_on_bases']:,} bases of sequence of <code>{made['configuration']['reference'][0]}" in html
    assert html.count("<svg") == 4


def test_a_probe_has_no_curve(world: World, run_cli: RunCli, tmp_path: Path) -> None:
    model = classifier(run_cli, world, tmp_path / "c", "-m", world.pretrained, "--method", "probe")
    html = page_of(run_cli, world, model, tmp_path)
    assert "no curve of the fine-tuning: a probe is not trained in steps" in html
    assert "a probe of frozen features, fitted on 80 variants" in html
    assert "epochs" not in html
    assert BITS in html
    assert html.count("<svg") == 4


@pytest.mark.parametrize("what", ["moved", "replaced", "scratch"])
def test_without_its_pretraining_the_rest_is_shown(
    world: World, run_cli: RunCli, tmp_path: Path, genome: dict[str, str], what: str
) -> None:
    before = tmp_path / "before"
    if what == "scratch":
        how: tuple[object, ...] = ("--architecture.d_model", 8, "--architecture.n_layer", 1)
        why = "the model was trained from scratch: there was no pretraining"
    else:
        shutil.copytree(world.pretrained, before)
        how = ("-m", before)
        why = {
            "moved": f"the pretrained model is no longer at {before}",
            "replaced": f"there is another model at {before} now",
        }[what]
    model = classifier(run_cli, world, tmp_path / "c", *how)
    if what == "moved":
        before.rename(tmp_path / "elsewhere")
    elif what == "replaced":
        shutil.copy(shipped_model() / "model.safetensors", before)
    html = page_of(run_cli, world, model, tmp_path)
    assert f"no curve of the pretraining: {why}" in html
    assert f"<td>pretraining</td><td>{why}</td>" in html
    assert BITS not in html
    assert html.count("<svg") == 4
    assert ("Trained on AAA1" if what == "scratch" else "Fine-tuned on AAA1") in html


def test_of_an_imported_model_no_pretraining_is_claimed(world: World, run_cli: RunCli, tmp_path: Path) -> None:
    imported = tmp_path / "imported"
    assert run_cli("export", "-m", world.pretrained, "-o", tmp_path / "theirs").code == 0
    assert run_cli("import", tmp_path / "theirs", "-o", imported).code == 0
    html = page_of(run_cli, world, classifier(run_cli, world, tmp_path / "c", "-m", imported), tmp_path)
    assert f"the pretrained model was imported from {tmp_path / 'theirs'}, not trained here" in html
    assert BITS not in html


def test_an_evaluation_that_is_none_is_named(world: World, run_cli: RunCli, tmp_path: Path) -> None:
    other = tmp_path / "e.json"
    other.write_text("[1]")
    result = run_cli("report", "-m", world.classifier, "-e", other, "-o", tmp_path / "r.html")
    assert result.code == 2
    assert f"{other}: it is not what `genomamba evaluate` writes" in result.err
    assert not (tmp_path / "r.html").exists()
