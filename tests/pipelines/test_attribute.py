"""Saturation mutagenesis, through the command line."""

from __future__ import annotations

import errno
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pysam
import pytest
import torch
from matplotlib import image
from matplotlib.figure import Figure
from world import RunCli, World, write_reference, write_vcf

from genomamba.genome.interval import Interval
from genomamba.model.backbone import MaskedLM
from genomamba.model.config import ModelConfig
from genomamba.model.folder import save_model
from genomamba.pipelines.attribution_pictures import Attribution, heat_map, logo, save

SEQUENCE = "".join(np.random.default_rng(5).choice(list("ACGT"), 60))


def table(text: str, column: str = "llr_nats") -> dict[tuple[int, str], float]:
    header, *rows = (line.split("\t") for line in text.splitlines())
    assert header == ["contig", "pos", "ref", "alt", column]
    return {(int(pos), alt): float(score) for _, pos, _, alt, score in rows}


@pytest.mark.parametrize("kind", ["pretrained", "classifier", "masked"])
def test_scores_are_those_of_score(world: World, run_cli: RunCli, tmp_path: Path, kind: str) -> None:
    """Where a window holds the whole contig, both commands show the model the same."""
    model = tmp_path / "m"
    if kind == "masked":
        torch.manual_seed(2)
        masked = MaskedLM(ModelConfig(d_model=8, n_layer=2, d_state=4, bidirectional=True))
        save_model(masked, model, card="", provenance={})
    else:
        model = getattr(world, kind)
    write_reference(tmp_path / "s.fa", {"s": SEQUENCE})
    region = range(20, 32)
    snvs = [f"s\t{at + 1}\t.\t{SEQUENCE[at]}\t{alt}\t.\t.\t." for at in region for alt in "ACGT" if alt != SEQUENCE[at]]
    source, out = write_vcf(tmp_path / "s.vcf", snvs, {"s": 60}), tmp_path / "o.vcf"
    common = ("-r", tmp_path / "s.fa", "-m", model, "--window", 130)
    assert run_cli("score", *common, "-i", source, "-o", out).code == 0
    with pysam.VariantFile(str(out)) as scored:
        key = "GM_PROB" if kind == "classifier" else "GM_LLR"
        expected = {(record.pos, record.alts[0]): record.info[key][0] for record in scored}
    result = run_cli("attribute", *common, "--region", "s:21-32", "--batch-size", 7)
    assert result.code == 0, result.err
    found = table(result.out, "p_positive" if kind == "classifier" else "llr_nats")
    assert list(found) == list(expected)
    assert found == {at: pytest.approx(value, rel=1e-3, abs=1e-4) for at, value in expected.items()}
    assert "s:21-32: 36 substitutions scored\n" in result.err


def test_pictures_and_a_base_that_is_none(world: World, run_cli: RunCli, tmp_path: Path) -> None:
    write_reference(tmp_path / "s.fa", {"s": SEQUENCE[:30] + "Nr" + SEQUENCE[32:] * 5})
    names = {"-o": "t.tsv", "--logo": "logo.png", "--heatmap": "map.svg"}
    outputs = [word for option, name in names.items() for word in (option, tmp_path / name)]
    words = ("attribute", "-r", tmp_path / "s.fa", "-m", world.pretrained, "--region", "s:25-140", "--horizon", 20)
    result = run_cli(*words, *outputs)
    assert result.code == 0, result.err
    assert "SKIP_NO_BASE 2\n" in result.err
    found = table((tmp_path / "t.tsv").read_text())
    assert len(found) == 3 * (116 - 2)
    assert {31, 32}.isdisjoint(at for at, _ in found)
    pixels = image.imread(tmp_path / "logo.png")
    assert pixels.shape[1] == 1800
    assert len(np.unique(pixels.reshape(-1, pixels.shape[2]), axis=0)) > 50  # letters in four colours, and their edges
    drawing = (tmp_path / "map.svg").read_text()
    assert drawing.count("<image") == 3  # two lines of bases, and the scale
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    for option, name in names.items():
        again = run_cli(*words, option, tmp_path / name)
        assert (again.code, again.err) == (
            2,
            f"{tmp_path / name}: the output exists; choose another -o, or pass --force to replace it\n",
        )
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("failing", ["t.tsv", "logo.png", "map.svg"])
def test_all_files_appear_or_none(
    world: World, run_cli: RunCli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    begin, draw = Path.open, Figure.savefig

    def full(path: object) -> None:
        if Path(str(path)).name.startswith(f".{failing}."):
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "open", lambda path, *args, **more: (full(path), begin(path, *args, **more))[1])
    monkeypatch.setattr(Figure, "savefig", lambda self, path, **more: (full(path), draw(self, path, **more))[1])
    words = ("attribute", "-r", world.reference, "-m", world.pretrained, "--region", "chrA:5001-5008", "--window", 20)
    names = {"-o": "t.tsv", "--logo": "logo.png", "--heatmap": "map.svg"}
    result = run_cli(*words, *(word for option, name in names.items() for word in (option, tmp_path / name)))
    assert result.code == 2
    assert result.err.splitlines()[-1].startswith(f"{tmp_path / failing}: it could not be written (No space left")
    assert list(tmp_path.iterdir()) == []


def test_a_heat_map_shows_each_substitution_in_its_place(tmp_path: Path) -> None:
    scores = np.zeros((4, 4))
    scores[np.arange(4), [0, 1, 2, 3]] = np.nan
    scores[1, 3] = -5.0  # C to T is red, G to A blue
    scores[2, 0] = 5.0
    path = tmp_path / "m.png"
    save(heat_map(Attribution(Interval("c", 0, 4), "ACGT", scores, "nats", "nats", True)), path, path.name)
    pixels = image.imread(path)[..., :3]
    left = pixels[:, : int(0.9 * pixels.shape[1])]  # without the scale
    red = np.argwhere((left[..., 0] > 0.3) & (left[..., 1:].max(-1) < 0.15)).mean(0)
    blue = np.argwhere((left[..., 2] > 0.3) & (left[..., :2].max(-1) < 0.25)).mean(0)
    assert red[0] > blue[0] + 50  # T is below A
    assert red[1] < blue[1] - 200  # base 2 is left of base 3


def made_up(bases: int, scores: np.ndarray, *, is_change: bool) -> Attribution:
    return Attribution(Interval("c", 1000, 1000 + bases), ("ACGT" * bases)[:bases], scores, "p", "mean p", is_change)


@pytest.mark.parametrize(
    ("bases", "positions"),
    [
        (1, [[1001]]),
        (5, [[1001, 1002, 1003, 1004, 1005]]),
        (20, [[1005, 1010, 1015, 1020]]),
        (100, [[1020, 1040, 1060, 1080, 1100]]),
        (103, [[1020, 1040, 1060, 1080, 1100], [1101]]),
    ],
)
def test_positions_that_are_labelled(bases: int, positions: list[list[int]]) -> None:
    shown = made_up(bases, np.linspace(-1, 1, 4 * bases).reshape(bases, 4), is_change=True)
    for figure in (heat_map(shown), logo(shown)):
        assert [list(axes.get_xticks()) for axes in figure.axes[: len(positions)]] == positions


def test_of_probabilities_that_are_all_alike_the_differences_are_shown() -> None:
    scores = np.full((21, 4), 0.97)
    scores[np.arange(21), np.arange(21) % 4] = np.nan
    scores[3, :3] = 0.99
    scores[5, [0, 2, 3]] = 0.96
    shown = made_up(21, scores, is_change=False)
    (axes,) = logo(shown).axes
    low, high = axes.get_ylim()
    assert (low, high) == pytest.approx((-0.01 - 0.0015, 0.02 + 0.0015))
    assert logo(shown)._supylabel.get_text().replace("\n", " ") == "mean p, less the region's median, 0.97"  # type: ignore[attr-defined]
    image = heat_map(shown).axes[0].images[0]
    assert image.get_clim() == (0.96, 0.99)
    assert heat_map(made_up(21, np.full((21, 4), 0.5), is_change=False)).axes[0].images[0].get_clim() == (0, 1)
    nothing = made_up(21, np.full((21, 4), np.nan), is_change=False)
    assert heat_map(nothing).axes[0].images[0].get_clim() == (0, 1)
    assert logo(nothing).axes[0].get_ylim() == pytest.approx((-0.05, 0.05))


@pytest.mark.parametrize("bases", [20, 250])
def test_upright_labels_fit_into_the_picture(bases: int) -> None:
    unit = "log-odds of the class enhancer of the forebrain, alt - ref, nats"
    scores = np.full((bases, 4), 0.5)
    shown = Attribution(Interval("c", 0, bases), "ACGTA" * (bases // 5), scores, unit, f"mean of {unit}", True)
    for figure in (heat_map(shown), logo(shown)):
        figure.canvas.draw()
        texts = [axes.yaxis.label for axes in figure.axes] + figure.texts
        if figure._supylabel is not None:  # type: ignore[attr-defined]
            texts.append(figure._supylabel)  # type: ignore[attr-defined]
        found = [text for text in texts if "forebrain" in text.get_text().replace("\n", " ")]
        assert len({id(text) for text in found}) == 1
        extent = found[0].get_window_extent()
        assert figure.bbox.y0 <= extent.y0
        assert extent.y1 <= figure.bbox.y1


def test_a_masked_model_needs_no_more_than_its_window(run_cli: RunCli, world: World, tmp_path: Path) -> None:
    model = MaskedLM(ModelConfig(d_model=8, n_layer=1, d_state=4, bidirectional=True))
    save_model(model, tmp_path / "m", card="", provenance={"window": 32})
    words = ("attribute", "-r", world.reference, "-m", tmp_path / "m", "--region", "chrA:1-9")
    result = run_cli(*words)
    assert result.code == 0, result.err
    found = table(result.out)
    assert len(found) == 27
    assert np.std(list(found.values())) > 0
    refused = run_cli(*words, "--horizon", 3)
    assert refused.err == "horizon=3: only a causal model has one; leave it out\n"


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("--region", "chrA:9990-10010"), "region=chrA:9990-10010: the interval leaves its contig, which has 10000"),
        (("--region", "chrQ:1-10"), "region=chrQ:1-10: contig 'chrQ' is unknown"),
        (("--region", "chrA:10-5"), "region=chrA:10-5: the end 5 lies before the start 10"),
        (("--region", "chrA:1e3-2000"), "region=chrA:1e3-2000: '1e3-2000' is not a range of whole numbers"),
        (("--region", "chrA:1-9", "--logo", "x.gif"), "logo=x.gif: it names no format of pictures; use .png, .svg"),
        (("--region", "chrA:1-1001", "--logo", "x.png"), "logo=x.png: a logo of 1,001 bases cannot be read; give"),
        (("--region", "chrA:1-9", "--horizon", "0"), "horizon=0: it must be at least 1"),
        ((), "region: missing; see `genomamba attribute --help`"),
    ],
)
def test_bad_options_are_refused_in_one_line(world: World, run_cli: RunCli, words: tuple[str, ...], line: str) -> None:
    result = run_cli("attribute", "-r", world.reference, "-m", world.pretrained, *words)
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith(line)
    assert result.err.count("\n") == 1


def test_a_closed_pipe_ends_quietly(world: World) -> None:
    words = f"attribute -r {world.reference} -m {world.pretrained} --region chrA:1-2000 --window 2 --horizon 1"
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {sys.executable} -m genomamba {words} --device cpu | head -n 2"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 141
    assert re.fullmatch(r"(mutating [^\n]*\n)+", done.stderr)  # of progress, more than one where it is slow
    assert re.fullmatch(r"contig\tpos\tref\talt\tllr_nats\nchrA\t1\t[ACGT]\t[ACGT]\t[-\d.e]+\n", done.stdout)


def test_the_benchmark_agrees_with_itself(tmp_path: Path) -> None:
    script = Path(__file__).parents[2] / "benchmarks" / "mutagenesis.py"
    small = "--device cpu --length 40 --d-model 8 --layers 1 --sample 6 --batch 4 --rows 12 --commit x"
    words = [sys.executable, str(script), *small.split(), "--out", str(tmp_path / "o.json")]
    subprocess.run(words, capture_output=True, check=True)
    found = json.loads((tmp_path / "o.json").read_text())
    assert found["substitutions"] == 120
    assert max(found["largest_difference"].values()) < 1e-4 < found["largest_score"]
