"""What the compiler makes of the scan's kernels for an H100 or H200; needs Triton and no GPU.

For each kernel, with z, D, dt_bias and softplus in bf16: registers, bytes of stack (spills), and of its loop the
instructions per element (token, channel and state), in all and exp2 and the like alone. All other instructions issue
one a cycle and scheduler, those only every eighth. A loop that a branch may leave out counts as if it were taken.
Last, how many instructions lie at least between a load from memory and the first one that waits for it, which is what
one warp has to hide the load behind; the assembler moves loads down where it has few registers.

    python benchmarks/scan_instructions.py
    python benchmarks/scan_instructions.py --registers 96
"""

from __future__ import annotations

import argparse
import re
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from genomamba.kernels.selective_scan import cut, triton_forward, triton_gradient, triton_rebuild

NARROW = {"u", "dt", "z", "dy", "du", "ddt", "dz_out", "y_out", "y"}
WIDE = {"A", "scaled_A", "coupling", "D_skip", "dt_bias", "states", "kept", "asked", "sums", "d_skip", "d_coupling"}
WIDE |= {"dA", "d_bias", "sum_y", "sum_x", "sum_a", "final"}
FLAGS = {"HAS_BIAS": True, "SOFTPLUS": True, "HAS_WALLS": False, "REVERSE": False, "MASK_L": False, "MASK_D": False}
OPCODE = re.compile(r"\*/\s+(?:@!?U?P\d+ )?\s*([A-Z0-9_]+)")
ENCODED = re.compile(r"/\* 0x([0-9a-f]{16}) \*/")
TOOLS = Path(triton.__file__).parent / "backends/nvidia/bin"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--registers", type=int, help="at most, instead of what each kernel is launched with")
    given = parser.parse_args().registers
    planned = cut.plan(1, 1 << 20, 512, 16)
    tile, unroll, keep = planned.forward_tile, planned.forward_unroll, planned.keep
    staged = {"WIDTH": 512, "STAGES": planned.stages, **FLAGS}
    forward = {"NP": 16, "N": tile, "U": unroll, **staged}
    backward = {"NP": 16, "N": planned.backward_tile, "BD": cut.LANES, "K": keep, **staged}
    gated = {"Z_ROW": 2, "HAS_SKIP": True, "HAS_GATE": True}
    ends = {"FIRST": True, "LAST": True}
    out = {"HAS_Y": True, "DZ_ROW": 2, "ADD": False}
    print("| kernel | registers | stack | instructions | exp2 and the like | from load to wait |\n|---|" + 5 * "---:|")
    show("state", triton_forward.state_kernel.jit, forward, unroll * tile, given or planned.state_registers)
    for fine in (False, True):
        name = "output, keeping fine states" if fine else "output"
        own = forward | gated | ends | {"KEEP": False, "FINE": fine, "FROM_ZERO": fine, "ADD": False}
        most = given or (planned.fine_registers if fine else planned.output_registers)
        show(name, triton_forward.output_kernel.jit, own, unroll * tile, most)
    most = given or planned.rebuild_registers
    show("rebuild", triton_rebuild.rebuild_kernel.jit, backward | gated, keep * tile, most)
    most = given or planned.gradient_registers
    for whole in (False, True):
        name = "gradient of all of L" if whole else "gradient"
        show(
            name,
            triton_gradient.gradient_kernel.jit,
            backward | gated | ends | out | {"WHOLE": whole},
            keep * tile,
            most,
        )


def show(name: str, kernel: Any, constants: dict[str, Any], elements: int, registers: int | None = None) -> None:
    """One line of the table; ``elements`` is how many a lane goes through in one turn of the loop."""
    cubin = compiled(kernel, constants, registers)
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        usage = run("cuobjdump", "-res-usage", file.name)
        instructions = loop(run("nvdisasm", "-c", "-hex", file.name))
    used = {key: int(re.search(rf"{key}:(\d+)", usage)[1]) for key in ("REG", "STACK")}  # type: ignore[index]
    special = sum(opcode.startswith("MUFU") for opcode, _ in instructions)
    figures = f"{len(instructions) / elements:.1f} | {special / elements:.2f} | {least_distance(instructions)}"
    print(f"| {name} | {used['REG']} | {used['STACK']} | {figures} |", flush=True)


def compiled(kernel: Any, constants: dict[str, Any], registers: int | None) -> bytes:
    signature, known, aligned = {}, dict(constants), {}
    for place, name in enumerate(kernel.arg_names):
        if name in constants:
            signature[name] = "constexpr"
        elif name in NARROW or name in WIDE or name == "walls":
            signature[name] = "*u8" if name == "walls" else "*bf16" if name in NARROW else "*fp32"
            aligned[(place,)] = [["tt.divisibility", 16]]
        elif (name.endswith("_sd") and name != "a_sd") or name == "a_sn":
            signature[name], known[name] = "constexpr", 1
        else:
            signature[name] = "i32"
            if name.endswith(("_sb", "_sl")) or name in ("chunk", "L", "D"):
                aligned[(place,)] = [["tt.divisibility", 16]]
    source = ASTSource(kernel, signature, {(kernel.arg_names.index(k),): v for k, v in known.items()}, aligned)
    options: dict[str, Any] = {"num_warps": 1} | ({"maxnreg": registers} if registers else {})
    return triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options).asm["cubin"]


def loop(disassembly: str) -> list[tuple[str, int]]:
    """Opcode and control bits of each instruction of the longest loop."""
    labels: dict[str, int] = {}
    found: list[tuple[str, int]] = []
    longest = (0, 0)
    for line in disassembly.splitlines():
        if label := re.match(r"\s*(\.L_\w+):", line):
            labels[label[1]] = len(found)
        elif re.search(r"/\*[0-9a-f]{4,}\*/", line) and (opcode := OPCODE.search(line)):
            found.append((opcode[1], 0))
            back = re.search(r"BRA.*`\((\.L_\w+)\)", line)
            if back and back[1] in labels and len(found) - labels[back[1]] > longest[1] - longest[0]:
                longest = labels[back[1]], len(found)
        elif found and (encoded := ENCODED.search(line)):  # the upper half, on a line of its own
            found[-1] = found[-1][0], int(encoded[1], 16) >> 41
    return found[slice(*longest)]


def least_distance(instructions: list[tuple[str, int]]) -> int:
    """From a load to the next wait for its scoreboard, round the loop.

    Bits 5 to 7 of the control say which of six scoreboards an instruction's result is counted by, 11 to 16 which
    ones it waits for (Jia et al. 2018, "Dissecting the NVIDIA Volta GPU architecture via microbenchmarking").
    """
    count = len(instructions)
    distances = []
    for place, (opcode, control) in enumerate(instructions):
        if opcode == "LDG" and (board := control >> 5 & 7) != 7:
            waits = (d for d in range(1, count) if instructions[(place + d) % count][1] >> 11 >> board & 1)
            distances.append(next(waits, count))
    return min(distances, default=0)


def run(tool: str, *arguments: str) -> str:
    return subprocess.run([TOOLS / tool, *arguments], stdout=subprocess.PIPE, check=True, text=True).stdout


if __name__ == "__main__":
    main()
