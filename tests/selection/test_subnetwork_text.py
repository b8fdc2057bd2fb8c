"""How a subnetwork and a tuned prior precision show themselves."""

import numpy as np
import torch

from sksubnet.posterior import Tuned
from sksubnet.selection import Subnetwork


def test_subnetwork_reads_as_a_sentence_and_a_table():
    layers = (("in.weight", 6, 2), ("in.bias", 3, 0), ("<out>", 3, 1))
    subnetwork = Subnetwork(np.array([1, 4, 9]), 12, 1, layers, explained_variance=0.75)
    lines = repr(subnetwork).splitlines()
    assert lines[0] == (
        "Subnetwork: 3 of 12 weights (25.0%), keeps 75.0% of the predictive variance at the "
        "reference inputs, 1 without effect on the training rows"
    )
    assert "\n".join(lines[1:]) == subnetwork.table()
    assert lines[2].split() == ["in.weight", "2", "6", "33.3%"]
    html = subnetwork._repr_html_()
    assert "&lt;out&gt;" in html and "<out>" not in html
    assert html.count("<tr>") == 1 + 3 + 1


def test_subnetwork_of_a_deep_net_lists_where_its_weights_are():
    layers = tuple((f"layer{i}", 10, i % 3) for i in range(100))
    selected = sum(count for _, _, count in layers)
    text = repr(Subnetwork(np.arange(selected), 1000, layers=layers))
    assert text.count("\nlayer") == 20
    assert "\nlayer3 " not in text  # it has none of the selected weights
    assert text.endswith("(80 parameter tensors not shown)")


def test_tuned_says_what_was_chosen_and_from_where():
    grid = torch.tensor([0.01, 1.0, 100.0])
    losses = torch.tensor([0.9, 0.25, 0.7])
    tuned = Tuned(1.5, 2.0, grid=grid, losses=losses, at_edge="lower")
    assert repr(tuned) == (
        "Tuned: prior precision 1.5, noise variance times 2, scanned 3 values from 0.005 to 50, "
        "lowest loss 0.25 nats, best value at the lower edge"
    )
    assert "<td>1.5</td>" in tuned._repr_html_()
    assert repr(Tuned(3.0)) == "Tuned: prior precision 3"
