"""What every command that reads a model along regions refuses: broken models, absent devices, outputs that exist."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from world import RunCli, World

COMMANDS = {
    "likelihood": ("--region", "chrA:1-9", "-o", "out.bw"),
    "attribute": ("--region", "chrA:1-9", "-o", "out.tsv"),
    "embed": ("--region", "chrA:1-9", "-o", "out.npz"),
    "predict": ("--region", "chrA:1-9", "-o", "out.tsv"),
    "generate": ("-l", 3, "-o", "out.fa"),
}


def cut(model: Path) -> str:
    whole = (model / "model.safetensors").read_bytes()
    (model / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    return "model.safetensors: it is cut or not safetensors"


def other_width(model: Path) -> str:
    config = json.loads((model / "config.json").read_text())
    config["model"]["d_model"] *= 2
    (model / "config.json").write_text(json.dumps(config))
    return "model.safetensors: weights and config.json disagree: "


def no_weights(model: Path) -> str:
    (model / "model.safetensors").unlink()
    return "model.safetensors: it is missing"


def odd_key(model: Path) -> str:
    config = json.loads((model / "config.json").read_text())
    config["model"]["d_modle"] = 3
    (model / "config.json").write_text(json.dumps(config))
    return "config.json: model.d_modle: unknown key; the nearest is d_model"


class Evil:
    """Makes a file called ``executed`` when it is unpickled."""

    def __reduce__(self) -> tuple[Callable, tuple]:
        return (Path.touch, (Path("executed"),))


def run(run_cli: RunCli, world: World, command: str, model: Path, *words: object) -> tuple[int, str, str]:
    reference = () if command == "generate" else ("-r", world.reference)
    result = run_cli(command, *reference, "-m", model, *COMMANDS[command], *words)
    return result.code, result.out, result.err


@pytest.fixture
def model(world: World, trained: Path, command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy to break of a model that suits the command, in an empty current folder."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(trained / "model" if command == "predict" else world.pretrained, tmp_path / "model")
    return tmp_path / "model"


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("damage", [cut, other_width, no_weights, odd_key])  # 56, 57
def test_a_broken_model_is_refused_in_one_line(
    world: World, run_cli: RunCli, model: Path, command: str, damage: Callable[[Path], str]
) -> None:
    problem = damage(model)
    code, out, err = run(run_cli, world, command, model)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith(f"{model}/{problem}")
    assert [path.name for path in Path().iterdir()] == ["model"]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_pickle_is_refused_and_not_executed(
    world: World, run_cli: RunCli, model: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:  # 58
    shutil.rmtree(model)
    model.mkdir()
    torch.save({"weight": Evil()}, model / "pytorch_model.bin")
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    code, out, err = run(run_cli, world, command, model)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert [path.name for path in Path().iterdir()] == ["model"]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_gpu_that_is_not_there_and_an_output_that_is(
    world: World, run_cli: RunCli, model: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    code, out, err = run(run_cli, world, command, model, "--device", "gpu")  # 62
    assert (code, out) == (2, "")
    assert err.startswith("device=gpu: torch finds no GPU; ")
    output = Path(str(COMMANDS[command][-1]))
    assert not output.exists()
    output.write_text("mine")
    code, out, err = run(run_cli, world, command, model)  # 63
    assert (code, out) == (2, "")
    assert err == f"{output}: the output exists; choose another -o, or pass --force to replace it\n"
    assert output.read_text() == "mine"
    code, _, err = run(run_cli, world, command, model, "--force")
    assert code == 0, err
    assert output.read_bytes() != b"mine"
