"""Where no model is given the one that ships is taken, and stderr says which one that is."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from sequence_tables import rows, write_table
from world import RunCli, World

from genomamba import __version__
from genomamba.data.example import example_path
from genomamba.errors import CheckpointError
from genomamba.model.folder import weights_fingerprint
from genomamba.model.pretrained import shipped_model
from genomamba.model.pretrained.ship import ship

FOLDER = shipped_model()
SAID = f"the model is {FOLDER.name}, which ships with genomamba\n"
COMMANDS = {
    "score": "-i {labelled} --window 64 -o {out}.vcf",
    "likelihood": "--region chrA:1-300 -o {out}.tsv",
    "embed": "--region chrA:1-300 -o {out}.npz",
    "attribute": "--region chrA:101-110 --window 64 -o {out}.tsv",
    "generate": "-n 1 -l 20 -o {out}.fa",
    "evaluate regions": "-b {bed} --window 64 -o {out}.tsv",
}


def words_of(command: str, world: World, folder: Path, name: str) -> list[object]:
    bed = folder / "regions.bed"
    bed.write_text("chrA\t0\t200\n")
    rest = COMMANDS[command].format(labelled=world.labelled, bed=bed, out=folder / name)
    reference = () if command == "generate" else ("-r", world.reference)
    return [*command.split(), *reference, *rest.split()]


@pytest.mark.parametrize("command", COMMANDS)
def test_without_a_model_it_is_the_one_that_ships(command: str, world: World, run_cli: RunCli, tmp_path: Path) -> None:
    left_out = run_cli(*words_of(command, world, tmp_path, "left_out"))
    assert left_out.code == 0, left_out.err
    assert SAID in left_out.err
    given = run_cli(*words_of(command, world, tmp_path, "given"), "-m", FOLDER)
    assert given.code == 0, given.err
    assert SAID not in given.err
    one, other = (next(tmp_path.glob(f"{name}.*")).read_bytes() for name in ("left_out", "given"))
    assert one == other
    shown = " ".join(run_cli(*command.split(), "--help").out.split())
    assert "the language model that ships with genomamba when not given" in shown


def test_scores_name_the_model_its_version_and_its_weights(world: World, run_cli: RunCli) -> None:
    result = run_cli("score", "-r", world.reference, "-i", world.labelled, "--window", 64, "-o", "-")
    assert result.code == 0, result.err
    weights = weights_fingerprint(FOLDER)
    header = f"##genomamba=<ID={FOLDER.name},Version={__version__},Window=64,Step=4,Weights={weights}>"
    assert header in result.out.splitlines()
    records = [line for line in result.out.splitlines() if not line.startswith("#")]
    assert len(records) == 160
    for record in records:
        _, model, llr, probability, status = record.split("GENOMAMBA=")[1].split(";")[0].split("|")
        assert (model, probability, status) == (FOLDER.name, ".", "OK")
        assert np.isfinite(float(llr))


def test_it_has_learned_something_of_a_gene_that_it_never_saw(run_cli: RunCli, tmp_path: Path) -> None:
    (tmp_path / "tp53.bed").write_text("chr17\t7661178\t7688546\n")
    with example_path("reference.fa.gz") as path:
        shutil.copy(path, tmp_path)  # where its index may lie
    result = run_cli("evaluate", "regions", "-r", tmp_path / "reference.fa.gz", "-b", tmp_path / "tp53.bed")
    assert result.code == 0, result.err
    assert float(result.out.splitlines()[1].split("\t")[5]) < 1.98


def test_its_training_genomes_do_not_ship(world: World, run_cli: RunCli, tmp_path: Path) -> None:
    result = run_cli(*words_of("evaluate regions", world, tmp_path, "out"), "--context-model")
    assert result.code == 2
    assert "the genomes that it was trained on do not come with it; give -m" in result.err.splitlines()[-1]
    assert not (tmp_path / "out.tsv").exists()


def shown_as_seen(err: str) -> tuple[str, Path]:
    """The line that says what the model was trained on, and the BED that it names."""
    (line,) = (line for line in err.splitlines() if line.startswith("it was trained on "))
    return line, Path(line.partition("regions in ")[2].partition("), without")[0])


def test_pretraining_goes_on_from_it(world: World, run_cli: RunCli, tmp_path: Path) -> None:
    words = ("pretrain", "-r", world.reference, "--init", "shipped", "--window", 32, "--batch-size", 2, "--steps", 1)
    still = run_cli(*words, "--optimizer.lr", 0, "-o", tmp_path / "still")
    assert still.code == 0, still.err
    assert SAID in still.err
    seen, bed = shown_as_seen(still.err)
    assert "scerevisiae_R64.fa.gz" in seen
    regions = [line.split("\t") for line in bed.read_text().splitlines()]
    assert f"{sum(int(end) - int(start) for _, start, end in regions):,} bases" in seen
    contigs, held_out = {contig for contig, *_ in regions}, seen.partition("without ")[2].partition(": other")[0]
    assert "hg38_gene_BRCA2" in held_out
    assert not contigs & set(held_out.split(", "))
    moved = run_cli(*words, "-o", tmp_path / "moved")
    assert moved.code == 0, moved.err
    theirs = safetensors.numpy.load_file(FOLDER / "model.safetensors")
    kept, changed = (safetensors.numpy.load_file(tmp_path / n / "model.safetensors") for n in ("still", "moved"))
    assert kept.keys() == changed.keys() == theirs.keys()
    assert all(np.array_equal(kept[name], theirs[name]) for name in theirs)
    assert not all(np.array_equal(changed[name], theirs[name]) for name in theirs)
    made = json.loads((tmp_path / "moved" / "provenance.json").read_text())
    assert made["started_from"]["weights"] == weights_fingerprint(FOLDER)
    again = run_cli("pretrain", "-c", tmp_path / "moved" / "run.yaml", "-o", tmp_path / "again")
    assert again.code == 0, again.err
    bits = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("moved", "again")]
    assert bits[0] == bits[1]


def test_a_run_may_have_its_name(
    world: World, run_cli: RunCli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ("pretrain", "-r", world.reference, "--init", "shipped", "--window", 32, "--batch-size", 2, "--steps", 1)
    result = run_cli(*words, "-o", "shipped")
    assert result.code == 0, result.err
    assert (tmp_path / "shipped" / "model.safetensors").is_file()


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (
            "--init shipped --model.d_model 32",
            "model.d_model=32: the model of --init has its own, but for dropout and drop_path; leave out",
        ),
        ("--init shipped --objective masked", "it is no masked language model; give another --init or --objective"),
        ("--init {classifier}", "it is no causal language model; give another --init or --objective"),
        ("--init {folder}/nowhere", "nowhere"),
    ],
)
def test_what_cannot_be_gone_on_from(words: str, problem: str, world: World, run_cli: RunCli, tmp_path: Path) -> None:
    given = words.format(classifier=world.classifier, folder=tmp_path).split()
    result = run_cli("pretrain", "-r", world.reference, "-o", tmp_path / "run", *given)
    assert result.code == 2
    assert problem in result.err.splitlines()[-1]
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("kind", ["variants", "sequences"])
def test_fine_tuning_starts_from_it(kind: str, world: World, run_cli: RunCli, tmp_path: Path) -> None:
    if kind == "variants":
        words = f"-r {world.reference} -i {world.labelled} --window 32 --train AAA1 BBB2 --valid CCC3"
    else:
        words = f"-i {write_table(tmp_path / 'table.csv', rows())}"
    result = run_cli("finetune", kind, *words.split(), "-m", "shipped", "--method", "probe", "-o", tmp_path / "run")
    assert result.code == 0, result.err
    assert SAID in result.err
    made = json.loads((tmp_path / "run" / "provenance.json").read_text())
    assert made["pretrained"]["weights"] == weights_fingerprint(FOLDER)
    ours, theirs = (safetensors.numpy.load_file(f / "model.safetensors") for f in (tmp_path / "run", FOLDER))
    shared = [name for name in theirs if name.startswith("backbone.")]
    assert shared
    assert all(np.array_equal(ours[name], theirs[name]) for name in shared)


@pytest.mark.parametrize("given", ["shipped", "{world.pretrained}"])
def test_a_folder_of_ours_is_not_to_be_imported(given: str, world: World, run_cli: RunCli, tmp_path: Path) -> None:
    result = run_cli("import", given.format(world=world), "-o", tmp_path / "out")
    assert result.code == 2
    folder = FOLDER if given == "shipped" else world.pretrained
    assert result.err.splitlines()[-1] == f"{folder}: it is a model folder of GenoMamba's already; use it as it is"
    assert not (tmp_path / "out").exists()


def test_info_says_what_it_is(run_cli: RunCli) -> None:
    shown = run_cli("info").out
    made = json.loads((FOLDER / "provenance.json").read_text())["shipped"]
    assert f"{FOLDER.name} (version {made['version']})" in shown
    assert f"{weights_fingerprint(FOLDER)}\n" in shown
    assert made["command"] in shown


def test_a_run_takes_its_place_without_the_folders_of_the_machine(world: World, tmp_path: Path) -> None:
    for version in (1, 2):
        made = ship(world.pretrained, f"tiny-v{version}", "genomamba pretrain -r genome.fa", tmp_path)
        assert [path.name for path in tmp_path.iterdir()] == [f"tiny-v{version}"]
    assert (made / "model.safetensors").read_bytes() == (world.pretrained / "model.safetensors").read_bytes()
    for path in made.iterdir():
        if path.suffix != ".safetensors":
            assert str(world.reference.parent) not in path.read_text(), path
    provenance = json.loads((made / "provenance.json").read_text())
    assert provenance["configuration"]["reference"] == [world.reference.name]
    assert provenance["shipped"]["version"] == 2


def test_one_that_is_killed_before_the_old_model_is_gone_leaves_the_new_one_shipping(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ship(world.pretrained, "tiny-v9", "genomamba pretrain", tmp_path)
    remove = shutil.rmtree

    def killed(folder: Path, *args: object, **more: object) -> None:
        if folder == tmp_path / "tiny-v9":
            raise KeyboardInterrupt
        remove(folder, *args, **more)  # type: ignore[call-overload]

    with monkeypatch.context() as patched:
        patched.setattr(shutil, "rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            ship(world.pretrained, "tiny-v10", "genomamba pretrain", tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tiny-v10", "tiny-v9"]
    assert shipped_model(tmp_path).name == "tiny-v10"
    with pytest.raises(CheckpointError, match="tiny-v10 ships already; take a new version"):
        ship(world.pretrained, "tiny-v9", "genomamba pretrain", tmp_path)
    (tmp_path / "tiny-v9" / "config.json").unlink()  # as where it was killed amid the removal
    (tmp_path / ".ship.left").mkdir()
    ship(world.pretrained, "tiny-v11", "genomamba pretrain", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["tiny-v11"]


def test_nor_with_those_of_its_other_inputs(world: World, run_cli: RunCli, tmp_path: Path) -> None:
    run, target, secret = tmp_path / "run", tmp_path / "target", tmp_path / "secret"
    secret.mkdir()
    target.mkdir()
    init = shutil.copytree(world.pretrained, secret / "earlier")
    places = {"regions": "chrA\t0\t9000\n", "valid-bed": "chrB\t0\t900\n", "test-bed": "chrB\t2000\t2900\n"}
    beds: list[object] = []
    for option, text in places.items():
        (secret / f"{option}.bed").write_text(text)
        beds += [f"--{option}", secret / f"{option}.bed"]
    words = ("--window", 32, "--batch-size", 2, "--steps", 1, "--init", init)
    result = run_cli("pretrain", "-r", world.reference, "-o", run, *beds, *words)
    assert result.code == 0, result.err
    made = ship(run, "tiny-v1", "genomamba pretrain -r genome.fa", target)
    for path in made.iterdir():
        if path.suffix != ".safetensors":
            assert str(tmp_path) not in path.read_text(), path
    assert "from the weights of `earlier`" in (made / "README.md").read_text()
    provenance = json.loads((made / "provenance.json").read_text())
    assert provenance["started_from"] == {"path": "earlier", "weights": weights_fingerprint(world.pretrained)}
    assert provenance["configuration"]["valid_bed"] == "valid-bed.bed"


def test_what_shipped_stays_until_the_new_one_is_whole(world: World, tmp_path: Path) -> None:
    run, target = shutil.copytree(world.pretrained, tmp_path / "run"), tmp_path / "target"
    target.mkdir()
    ship(run, "tiny-v1", "genomamba pretrain", target)
    with pytest.raises(CheckpointError, match="take a new version"):
        ship(run, "tiny-v1", "genomamba pretrain", target)
    (run / "valid.bed").unlink()
    with pytest.raises(FileNotFoundError):
        ship(run, "tiny-v2", "genomamba pretrain", target)
    assert [path.name for path in target.iterdir()] == ["tiny-v1"]
    assert (target / "tiny-v1" / "config.json").is_file()
