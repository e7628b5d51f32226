"""A forest small enough to walk by hand."""

from __future__ import annotations

import pytest
import torch

from genomamba.errors import ConfigError
from genomamba.model.trees import TreeHead, TreeShape


def test_a_stump_and_a_deeper_tree_by_hand() -> None:
    head = TreeHead(TreeShape(trees=2, nodes=5, depth=2), outputs=2)
    # first: x0 <= 1 ? -1 : (x1 <= 0 ? 2 : 3); second adds 10 always, to the other output
    head.feature[0, 2] = 1
    head.left[0], head.right[0] = torch.tensor([1, 1, 3, 3, 4]), torch.tensor([2, 1, 4, 3, 4])
    head.threshold[0, 0] = 1.0
    head.value[0] = torch.tensor([0.0, -1.0, 0.0, 2.0, 3.0])
    head.value[1, 0], head.output[1] = 10.0, 1
    head.baseline[:] = torch.tensor([0.5, 0.0])
    rows = torch.tensor([[1.0, 9.0], [1.1, 0.0], [1.1, 0.1]])
    assert head(rows).tolist() == [[-0.5, 10.0], [2.5, 10.0], [3.5, 10.0]]


def test_a_forest_without_trees_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"trees\.nodes=0: it must be at least 1"):
        TreeShape(trees=1, nodes=0, depth=1)
