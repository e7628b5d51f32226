"""The grid of a benchmark: what fails is not chosen, what is known is not done again, what is of another is refused."""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from pathlib import Path
from typing import Any

import pytest

PROGRAMS = ("classification", "clinvar")


@pytest.fixture(params=PROGRAMS)
def program(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    return importlib.import_module(request.param)


def series(program: Any, tmp_path: Path, found: dict[str, Any], *, models: str = "models", **changed: Any) -> Any:
    task = tmp_path / "task.csv.gz"
    task.write_bytes(b"task")
    given = {
        "set": [],
        "special": [],
        "seeds": [0, 1],
        "lr": [0.5, 0.25, 0.125],
        "strands": None,
        "pooling": None,
        "keep": None,
    }
    options = argparse.Namespace(**given | {"model": None} | changed)
    start: Any = task if program.__name__ == "classification" else "lora"
    words = (start, "scratch") if program.__name__ == "classification" else (start,)
    kind = program.TaskSeries if program.__name__ == "classification" else program.MethodSeries
    return kind(*words, options, tmp_path / models, found)


def names(jobs: Any) -> list[str]:
    return [job.name.partition(", ")[2] for job in jobs]


def result(good: float) -> dict[str, Any]:
    return {"seed": 0, "dev": {"valid_mcc": good}, "valid_auroc": good}


def test_a_failed_setting_is_not_chosen(program: Any, tmp_path: Path) -> None:
    found: dict[str, Any] = {}
    own = series(program, tmp_path, found)
    first, second, third = own.begin()
    assert names(own.take(first, result(0.5))) == []
    assert names(own.lose(third, "ran out of memory")) == []
    (own.folder / second.name.partition(", ")[2]).mkdir(parents=True)
    test, other = own.take(second, result(0.75))
    assert names([test, other])[0] == f"{names([second])[0]}, test"
    assert other.name.endswith("1")  # the other seed
    assert (found.get("chosen") or found)["lr" if "lr" in found else "optimizer.lr"] == 0.25
    assert "ran out of memory" in json.dumps(found)


def test_the_last_one_to_fail_lets_the_others_be_chosen_among(program: Any, tmp_path: Path) -> None:
    own = series(program, tmp_path, {})
    first, second, third = own.begin()
    assert names(own.lose(first, "died")) == names(own.take(second, result(0.5))) == []
    assert len(names(own.lose(third, "died"))) == 2
    own = series(program, tmp_path, {})
    assert [names(own.lose(job, "died")) for job in own.begin()] == [[], [], []]


def test_a_stopped_grid_goes_on_where_it_was(program: Any, tmp_path: Path) -> None:
    found: dict[str, Any] = {}
    own = series(program, tmp_path, found)
    every = list(own.begin())
    assert names(own.take(every[0], result(0.75))) == []
    again = series(program, tmp_path, json.loads(json.dumps(found)), models="others")
    rest = list(again.begin())
    assert names(rest) == names(every[1:])
    assert names(again.take(rest[0], result(0.5))) == []
    # The model of the best one is gone: it is trained again.
    seeds = names(again.take(rest[1], result(0.25)))
    assert [seed[-1] for seed in seeds] == ["0", "1"]


def test_results_made_with_something_else_are_refused(program: Any, tmp_path: Path) -> None:
    found: dict[str, Any] = {}
    series(program, tmp_path, found)
    series(program, tmp_path, found, seeds=[0, 1, 2])
    with pytest.raises(SystemExit, match="another set;"):
        series(program, tmp_path, found, set=["epochs=3"])
    with pytest.raises(SystemExit, match=r"another (lr|grid);"):
        series(program, tmp_path, found, lr=[0.5, 0.25])
    with pytest.raises(SystemExit, match="another first_seed;"):
        series(program, tmp_path, found, seeds=[1])
    with pytest.raises(SystemExit, match="give another --out"):
        series(program, tmp_path, {"seeds": []})


def test_results_of_another_model_are_refused(program: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fasta, variants, run = tmp_path / "r.fa", tmp_path / "v.tsv", tmp_path / "run"
    fasta.write_text(">a\nACGT\n")
    variants.write_text("variants\n")
    (tmp_path / "one.csv.gz").write_bytes(b"task")
    run.mkdir()
    (run / "config.json").write_text('{"model": {"d_model": 8}}')
    (run / "model.safetensors").write_bytes(b"weights")
    inputs = [tmp_path] if program.__name__ == "classification" else ["-r", fasta, "-i", variants]
    words = ["benchmark", *inputs, "--model", run, "--out", tmp_path / "out.json"]
    monkeypatch.setattr(sys, "argv", [str(word) for word in words])
    monkeypatch.setattr(importlib.import_module("series"), "side_by_side", lambda *_, **__: {})
    program.main()
    program.main()
    (run / "model.safetensors").write_bytes(b"others")
    with pytest.raises(SystemExit, match="another model;"):
        program.main()


def test_the_table_says_in_words_what_is_above_what(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    classification = importlib.import_module("classification")

    def runs(*figures: float) -> dict[str, Any]:
        return {"seeds": [{"test": {"MCC": [figure, None, None]}} for figure in figures]}

    results = {
        "helped": {"pretrained": runs(0.7, 0.5), "scratch": runs(0.59)},
        "harmed": {"pretrained": runs(0.6), "scratch": runs(0.6)},
        "half": {"pretrained": runs(0.4)},
    }
    assert classification.compared(results, {"helped": 0.595, "half": 0.41, "not run": 0.1}) == (
        "Pretrained above from scratch in 1 of 2 tasks (not harmed); pretrained above the k-mer floor in 1 of 2 "
        "(not half); from scratch above the k-mer floor in 0 of 1 (not helped)."
    )
