"""What an evaluation says of the consequence class is what its figures say."""

from __future__ import annotations

from typing import Any

import pytest

from genomamba.pipelines.evaluate_variants import note


@pytest.mark.parametrize(
    ("alone", "classes", "said"),
    [
        ([0.98, 0.97, 0.99], 3, "all but decides the pooled label"),
        ([0.61, 0.5, 0.7], 3, "reaches an AUROC of 0.610; within a class"),
        ([0.5, 0.5, 0.5], 1, "Nothing here says"),  # no class is given
        ([None, None, None], 3, "Nothing here says"),
    ],
)
def test_note_of_an_evaluation(alone: list[float | None], classes: int, said: str) -> None:
    evaluation: dict[str, Any] = {"consequence_only": {"AUROC": alone}, "within": [{}] * classes}
    assert said in note(evaluation)
