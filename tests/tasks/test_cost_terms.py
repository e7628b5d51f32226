"""What the memory of a step on a GPU is made of, by the rules of its block, and what was measured of it."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path

import pytest

from genomamba.kernels.mamba_block import budget
from genomamba.model.config import ModelConfig
from genomamba.tasks.cost_terms import Gpu, Method, Work, block_bytes, groups, kept_bytes, memory_terms, time_terms
from genomamba.tasks.costs import FOLDER, Cost, largest_window, plans, read_costs

KEEPS, AGAIN = Method("bf16-mixed", False), Method("bf16-mixed", True)
H200 = Gpu(150_109_880_320, 132)
GIB = 1 << 30
MODEL = ModelConfig(d_model=256, n_layer=8, d_state=16)
PARAMETERS = 3_508_480


def predicted(work: Work, method: Method = KEEPS, replayed: bool | None = None) -> Cost:
    costs = read_costs("NVIDIA H200")
    assert costs is not None
    cost = costs.predict(work, method, replayed=replayed)
    assert cost is not None
    return cost


def test_every_measured_step_is_predicted() -> None:
    """Memory and time of all points of the file, which the fit saw."""
    count = 0
    for one in json.loads((FOLDER / "nvidia_h200.json").read_text(encoding="utf-8"))["methods"]:
        for row in one["points"]:
            width, layers, states, windows, length = row["point"]
            model = ModelConfig(d_model=width, n_layer=layers, d_state=states)
            method = Method(one["precision"], one["activation_checkpointing"])
            cost = predicted(Work(model, row["parameters"], windows, length), method, replayed=False)
            assert cost.peak_bytes == pytest.approx(row["bytes"], rel=0.05)
            assert cost.seconds == pytest.approx(row["seconds"], rel=0.1)
            count += 1
    assert count >= 12


@pytest.mark.parametrize(
    ("windows", "length", "gib", "seconds"), [(1, 1_048_576, 23.08, 0.28896), (128, 1024, 14.82, 0.02959)]
)
def test_runs_that_the_fit_did_not_see_are_predicted(windows: int, length: int, gib: float, seconds: float) -> None:
    """Memory is that of benchmarks/results/train_step_h200.json; the second's time is that of a CUDA graph.

    Times are of the kernels that the coefficients were measured with, before loads went through shared memory: steps
    take a tenth less since, which `plan` will say when benchmarks/plan_fit.py has been run again.
    """
    cost = predicted(Work(MODEL, PARAMETERS, windows, length))
    assert cost.peak_bytes == pytest.approx(gib * GIB, rel=0.05)
    assert cost.seconds == pytest.approx(seconds, rel=0.1)


@pytest.mark.parametrize(("length", "gib"), [(8_388_608, 63.4), (12_582_912, 94.95)])
def test_slabs_and_checkpointing_need_what_they_did(length: int, gib: float) -> None:
    """No point of the fit is in slabs; these are of benchmarks/results/train_step_h200.json."""
    cost = predicted(Work(MODEL, PARAMETERS, 1, length), AGAIN)
    assert cost.peak_bytes == pytest.approx(gib * GIB, rel=0.05)


def test_many_rows_keep_fine_states_and_rebuild_nothing() -> None:
    rows, length, inner = 256, 1024, 512
    block = block_bytes(Work(MODEL, PARAMETERS, rows, length), KEEPS, H200)
    assert not block.rebuilds
    assert block.states == 4 * rows * length // 4 * 16 * inner
    assert block.inputs == 2 * rows * length * (inner // 2 + 2 * inner + 48)  # not the 512 MiB of projected input
    again = block_bytes(Work(MODEL, PARAMETERS, rows, length), AGAIN, H200)
    assert again.rebuilds  # 2 GiB of states are more than a thrifty block may take
    assert again.states == 4 * rows * length // 256 * 16 * inner
    assert again.scratch <= 1.5 * budget.scratch_bytes(H200.memory_bytes, in_slabs=False) + 8 * 16 * rows * length


def test_a_few_rows_keep_all_that_they_compute() -> None:
    rows, length, inner = 128, 1024, 512
    block = block_bytes(Work(MODEL, PARAMETERS, rows, length), KEEPS, H200)
    assert block.working == rows * length * 2 * inner * 2 == GIB // 4
    # Normed, projected, convolved and dt, and what dt, B and C come from.
    assert block.inputs == 2 * rows * length * (inner // 2 + 2 * inner + inner + inner + 48)
    more = block_bytes(Work(MODEL, PARAMETERS, rows + 1, length), KEEPS, H200)
    assert more.inputs == 2 * (rows + 1) * length * (inner // 2 + inner + inner + 48)
    deeper = Work(ModelConfig(d_model=256, n_layer=48, d_state=16), PARAMETERS, rows, length)
    assert block_bytes(deeper, KEEPS, H200).inputs == 2 * rows * length * (inner // 2 + 48)
    long = block_bytes(Work(MODEL, PARAMETERS, 1, 1 << 20), KEEPS, H200)
    assert long.inputs == 2 * (1 << 20) * 48
    assert block_bytes(Work(MODEL, PARAMETERS, 1, 1 << 20), AGAIN, H200).inputs == 0


def test_long_windows_run_in_slabs() -> None:
    """What is worked on no longer grows with the window; the states that enter a slab's chunks do."""
    short, long = (block_bytes(Work(MODEL, PARAMETERS, 1, length), KEEPS, H200) for length in (1 << 20, 1 << 22))
    assert short.working == long.working == 2 * GIB
    assert long.states == 4 * short.states
    assert long.scratch < short.scratch
    thrifty = block_bytes(Work(MODEL, PARAMETERS, 1, 1 << 22), AGAIN, H200)
    assert thrifty.working == long.working // 4


def test_checkpointing_keeps_the_stream_between_groups() -> None:
    assert groups(8) == [3, 3, 2]
    block = block_bytes(Work(MODEL, PARAMETERS, 256, 1024), AGAIN, H200)
    assert kept_bytes(8, block, False) == 8 * (block.stream + block.states) + 7 * block.inputs
    # The second group's own streams, and the one before it; the last group has a block less and a stream more.
    assert kept_bytes(8, block, True) == 4 * block.stream + 3 * block.states + 2 * block.inputs
    assert kept_bytes(1, block, True) == kept_bytes(1, block, False)
    host = time_terms(Work(MODEL, PARAMETERS, 256, 1024), AGAIN, H200).host
    assert host == {"n": 8, "m": 6}


def test_a_short_step_waits_for_the_host_unless_it_is_replayed() -> None:
    work = Work(MODEL, PARAMETERS, 8, 1024)
    assert predicted(work).seconds < predicted(work, replayed=False).seconds
    assert predicted(work, AGAIN).seconds == predicted(work, AGAIN, replayed=False).seconds
    long = Work(MODEL, PARAMETERS, 1, 1 << 20)
    assert predicted(long).seconds == predicted(long, replayed=False).seconds


def test_what_was_not_measured_is_not_predicted() -> None:
    costs = read_costs("NVIDIA H200")
    assert costs is not None
    work = Work(MODEL, PARAMETERS, 8, 1024)
    assert costs.predict(work, Method("32-true", False)) is None
    for model in (ModelConfig(rms_norm=False), ModelConfig(bidirectional=True), ModelConfig(layers="gru")):
        assert costs.predict(work._replace(model=model), KEEPS) is None


def test_the_longest_window_is_looked_for_beyond_what_does_not_fit() -> None:
    """A deep model keeps the inputs of shorter windows only: there is a length that needs less than a shorter one."""
    costs = read_costs("NVIDIA H200")
    assert costs is not None
    work = Work(ModelConfig(d_model=256, n_layer=16), 7_000_000, 1, 1 << 17)
    longer = work._replace(length=work.length + 4096)
    needs = [predicted(one).peak_bytes for one in (work, longer)]
    assert needs[1] < needs[0]
    assert largest_window(costs, work, KEEPS, 1.08 * needs[1] + 1) >= longer.length
    (plan,) = (p for p in plans(costs, work, "bf16-mixed", 1.08 * needs[1] + 1) if not p.activation_checkpointing)
    assert not plan.fits


@pytest.mark.parametrize(("width", "layers", "gib"), [(256, 16, 20), (128, 32, 12), (256, 8, 40), (64, 2, 1)])
def test_the_longest_window_is_found_to_within_a_hundredth(width: int, layers: int, gib: int) -> None:
    costs = read_costs("NVIDIA H200")
    assert costs is not None
    work = Work(ModelConfig(d_model=width, n_layer=layers), 5_000_000, 1, 1)
    found = largest_window(costs, work, KEEPS, gib * GIB)
    assert predicted(work._replace(length=found)).peak_bytes * 1.08 <= gib * GIB
    longer = range(found + found // 100, 4 * found, found // 400)
    assert all(predicted(work._replace(length=length)).peak_bytes * 1.08 > gib * GIB for length in longer)


def test_on_a_cpu_the_terms_know_no_blocks() -> None:
    work = Work(MODEL, PARAMETERS, 2, 64)
    (moment,) = memory_terms(work, Method("32-true", False), None)
    assert "kept" not in moment
    costs = read_costs("cpu")
    assert costs is not None
    assert costs.gpu is None


@pytest.mark.parametrize("device", ["cpu", "nvidia_h200"])
def test_the_coefficients_are_those_of_the_points_beside_them(
    device: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = json.loads((FOLDER / f"{device}.json").read_text(encoding="utf-8"))
    lines = [{key: value for key, value in found.items() if key != "methods"}]
    for one in found["methods"]:
        given = {name: one[name] for name in Method._fields}
        lines += [
            given | {key: row[key] for key in ("point", "parameters", "seconds", "bytes")} for row in one["points"]
        ]
    rows, out = tmp_path / "rows.jsonl", tmp_path / "costs.json"
    rows.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    program = Path(__file__).parents[2] / "benchmarks" / "plan_fit.py"
    monkeypatch.setattr(sys, "argv", [str(program), "--rows", str(rows), "--out", str(out)])
    runpy.run_path(str(program), run_name="__main__")
    for one, again in zip(found["methods"], json.loads(out.read_text(encoding="utf-8"))["methods"], strict=True):
        for kind in ("memory", "seconds"):
            assert again[kind] == pytest.approx(one[kind], rel=1e-6, abs=0)
