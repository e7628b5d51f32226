"""What the originals computed is what an import computes, on a CPU, through the command line and in memory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch

import genomamba
from genomamba.interop.importing import import_model
from genomamba.model.backbone import CausalLM, MaskedLM
from genomamba.pipelines.cli import main

GOLDEN = Path(__file__).parents[1] / "golden"
FILES = {"mamba1": CausalLM, "mamba2": CausalLM, "caduceus_ps": MaskedLM, "caduceus_ps_fused": MaskedLM}


@pytest.mark.parametrize("name", FILES)
def test_logits_equal_the_originals(name: str, tmp_path: Path) -> None:
    assert main(["import", str(GOLDEN / f"{name}.safetensors"), "-o", str(tmp_path / "m")]) == 0
    golden = safetensors.torch.load_file(GOLDEN / f"{name}.safetensors")
    model = genomamba.load_model(tmp_path / "m")
    assert type(model) is FILES[name]
    with torch.no_grad():
        logits = model(golden["__ids"])
    assert (logits - golden["__logits"]).abs().max() < 2e-5


def test_a_bare_file_loads_without_an_import() -> None:
    golden = safetensors.torch.load_file(GOLDEN / "mamba1.safetensors")
    model = genomamba.load_model(GOLDEN / "mamba1.safetensors")
    with torch.no_grad():
        assert (model(golden["__ids"]) - golden["__logits"]).abs().max() < 2e-5


def test_exact_products_of_mamba2_differ_from_the_originals_by_its_rounding_and_no_more() -> None:
    golden = safetensors.torch.load_file(GOLDEN / "mamba2.safetensors")
    model = import_model(GOLDEN / "mamba2.safetensors", ["ssm_cfg.tf32=false"]).model
    equations = import_model(GOLDEN / "mamba2.safetensors", impl="reference").model.double()
    with torch.no_grad():
        logits, exact = model(golden["__ids"]), equations(golden["__ids"]).float()
    assert (logits - exact).abs().max() < 2e-5
    assert 1e-4 < (logits - golden["__logits"]).abs().max() < 2e-4


def test_torch_is_imported_only_when_a_model_is_loaded() -> None:
    program = "import sys, genomamba; genomamba.load_model; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
