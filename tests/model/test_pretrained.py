"""The model that ships: small, whole, and without what the bundled example measures on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import genomamba
from genomamba.errors import CheckpointError
from genomamba.model.backbone import CausalLM
from genomamba.model.folder import weights_fingerprint
from genomamba.model.pretrained import SHIPPED, located, shipped_model
from genomamba.model.pretrained.ship import MOST_BYTES, ship

FOLDER = shipped_model()
MADE = json.loads((FOLDER / "provenance.json").read_text())
#: contigs of the training genomes that hold what the bundled example measures on
EXAMPLE = {"hg38_chr17:42425000-43600000", "hg38_gene_BRCA2", "hg38_gene_PALB2", "hg38_gene_TP53"}


def test_it_is_small_and_whole() -> None:
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) <= MOST_BYTES
    assert weights_fingerprint(FOLDER) == MADE["shipped"]["sha256"]
    assert FOLDER.name == MADE["shipped"]["name"]
    assert FOLDER.name.endswith(f"-v{MADE['shipped']['version']}")


def test_it_opens_by_its_word() -> None:
    assert located(SHIPPED) == FOLDER
    assert located("./shipped") == Path("shipped")
    assert isinstance(genomamba.load_model(SHIPPED), CausalLM)


def test_it_never_saw_what_the_bundled_example_measures_on() -> None:
    beds = (FOLDER / "training.bed").read_text() + (FOLDER / "valid.bed").read_text()
    seen = {line.split("\t")[0] for line in beds.splitlines()}
    assert len(seen) > 50
    assert not seen & EXAMPLE
    assert set(MADE["configuration"]["test"]) >= EXAMPLE


def test_a_name_needs_a_version(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="it does not end with a version"):
        ship(FOLDER, "genomamba-small", "", tmp_path)
    assert not list(tmp_path.iterdir())
