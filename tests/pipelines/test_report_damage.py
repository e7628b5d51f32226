"""A run folder of an older version, made by hand or damaged: the file and the key are named, and there is no page."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure
from world import RunCli, World

from genomamba.errors import CheckpointError, UserError
from genomamba.pipelines import report_page
from genomamba.pipelines.json_shape import EVERY, NUMBER, check_shape
from genomamba.pipelines.report_sources import CLASSIFIER, EVALUATION, PRETRAINING

SHAPES = {"classifier": CLASSIFIER, "pretrained": PRETRAINING, "evaluation": EVALUATION}


class Folders:
    """A classifier with the model that it came from, and its figures, to be damaged."""

    def __init__(self, folder: Path, world: World, evaluation: dict[str, Any]) -> None:
        self.pretrained, self.classifier = folder / "pretrained", folder / "classifier"
        self.evaluation, self.page = folder / "evaluation.json", folder / "page.html"
        shutil.copytree(world.pretrained, self.pretrained)
        shutil.copytree(world.classifier, self.classifier)
        made = json.loads((self.classifier / "provenance.json").read_text())
        made["pretrained"]["path"] = str(self.pretrained)
        (self.classifier / "provenance.json").write_text(json.dumps(made))
        self.evaluation.write_text(json.dumps(evaluation))

    def report(self, run_cli: RunCli) -> str:
        """What is said; there must be no page."""
        done = run_cli("report", "-m", self.classifier, "-e", self.evaluation, "-o", self.page)
        assert done.code == 2
        assert not self.page.exists()
        assert len(done.err.splitlines()) == 1
        return done.err

    def render(self) -> str:
        return report_page.render(str(self.classifier), str(self.evaluation))


@pytest.fixture(scope="module")
def evaluation(world: World, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    from genomamba.pipelines.cli import main

    path = tmp_path_factory.mktemp("figures") / "evaluation.json"
    given = ("-r", world.reference, "-i", world.labelled, "-m", world.classifier, "-o", path, "--device", "cpu")
    assert main(["evaluate", "variants", *map(str, given)]) == 0
    return json.loads(path.read_text())


@pytest.fixture
def folders(world: World, evaluation: dict[str, Any], tmp_path: Path) -> Folders:
    return Folders(tmp_path, world, evaluation)


def keys(found: Any, above: tuple = ()) -> Iterator[tuple]:
    """The path of every key, and of the first item of every list."""
    inside = found.items() if isinstance(found, dict) else list(enumerate(found))[:1] if isinstance(found, list) else ()
    for key, value in inside:
        yield (*above, key)
        yield from keys(value, (*above, key))


def without(found: Any, path: tuple) -> Any:
    changed = json.loads(json.dumps(found))
    inside = changed
    for key in path[:-1]:
        inside = inside[key]
    del inside[path[-1]]
    return changed


@pytest.mark.parametrize("which", ["classifier", "pretrained", "evaluation"])
def test_whatever_key_is_missing_there_is_a_page_or_the_key_is_named(
    folders: Folders, monkeypatch: pytest.MonkeyPatch, which: str
) -> None:
    if which == "evaluation":
        monkeypatch.setattr(Figure, "savefig", lambda _, stream, **__: stream.write("<svg></svg>"))
    else:  # pictures show nothing of it
        monkeypatch.setattr(report_page, "_picture", lambda _: "")
    path = folders.evaluation if which == "evaluation" else getattr(folders, which) / "provenance.json"
    whole = json.loads(path.read_text())
    named = []
    for missing in keys(whole):
        path.write_text(json.dumps(without(whole, missing)))
        try:
            folders.render()
        except UserError as error:
            named.append((missing, error))
    for missing, error in named:
        assert error.file == path
        assert re.sub(r"\[.*", "", str(error.field)) in ".".join(map(str, missing))
    assert {missing[0] for missing, _ in named} == SHAPES[which].keys()


def test_of_a_pretraining_that_does_not_say_its_steps(folders: Folders, run_cli: RunCli) -> None:
    path = folders.pretrained / "provenance.json"
    path.write_text(json.dumps(without(json.loads(path.read_text()), ("trained_on_bases",))))
    told = f"{path}: trained_on_bases: the key is missing; train the model with this version\n"
    assert folders.report(run_cli) == told


def test_of_a_classifier_that_does_not_say_its_window(folders: Folders, run_cli: RunCli) -> None:
    path = folders.classifier / "provenance.json"
    path.write_text(json.dumps(without(json.loads(path.read_text()), ("configuration", "window"))))
    assert folders.report(run_cli).startswith(f"{path}: configuration.window: the key is missing; ")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("provenance.json", ""),
        ("provenance.json", '{"configuration": {'),
        ("config.json", ""),
        ("metrics.csv", b"step,lr\n\xff\x00\xfe"),
        ("metrics.csv", "step,train_loss\n4,0.6\n9,broken\n"),
        ("metrics.csv", "step,train_loss\n4,0.6,7\n"),
        ("metrics.csv", "train_loss\n0.6\n"),
    ],
)
def test_a_damaged_file_is_named(folders: Folders, run_cli: RunCli, name: str, content: str | bytes) -> None:
    path = folders.classifier / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert folders.report(run_cli).startswith(f"{path}:")


def test_a_log_without_rows_is_no_curve(folders: Folders) -> None:
    (folders.classifier / "metrics.csv").write_text("")
    assert f"no curve of the fine-tuning: {folders.classifier / 'metrics.csv'} has no rows" in folders.render()


def test_other_commands_name_the_key_too(folders: Folders, run_cli: RunCli, world: World) -> None:
    path = folders.classifier / "provenance.json"
    path.write_text(json.dumps(without(json.loads(path.read_text()), ("split", "valid"))))
    done = run_cli("evaluate", "variants", "-r", world.reference, "-i", world.labelled, "-m", folders.classifier)
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert done.err.startswith(f"{path}: split.valid: the key is missing")


@pytest.mark.parametrize(
    ("found", "shape", "field"),
    [
        ({"a": 1}, {"a": int}, None),
        ({"a": True}, {"a": int}, "a"),
        ({"a": True}, {"a": bool}, None),
        ({"a": 1.5}, {"a": int}, "a"),
        ({"a": 1}, {"a": NUMBER}, None),
        ({"a": None}, {"a": (*NUMBER, None)}, None),
        ({"a": {"b": [1, "x"]}}, {"a": {"b": [int]}}, "a.b[1]"),
        ({"a": [1, "x"]}, {"a": [int, str]}, None),
        ({"a": [1, "x", 2]}, {"a": [int, str]}, "a"),
        ({"a": [1, 2]}, {"a": [int, str]}, "a[1]"),
        ({"a": {"x": 1, "y": ""}}, {"a": {EVERY: int}}, "a.y"),
        ({"x": 1, "y": ""}, {EVERY: int, "y": str}, None),
        ({"x": 1}, {EVERY: int, "y": str}, "y"),
        ({"a": {"b": 1}}, {"a": (None, {"c": int})}, "a.c"),
        ({"a": 3}, {"a": (None, {"c": int})}, "a"),
    ],
)
def test_what_a_shape_asks_for(found: Any, shape: Any, field: str | None) -> None:
    if field is None:
        return check_shape(found, shape, "f.json", "mend it")
    with pytest.raises(CheckpointError) as told:
        check_shape(found, shape, "f.json", "mend it", error=CheckpointError)
    assert told.value.field == field
