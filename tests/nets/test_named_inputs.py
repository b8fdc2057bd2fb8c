"""Columns by name: the same as a module that takes its columns apart itself."""

import pickle

import numpy as np
import pytest
import torch
from skorch import NeuralNetRegressor
from torch import nn

from sksubnet import MAPRegressor, NamedInputs, SubnetLaplaceRegressor

NAMES = ["town", "rooms", "area"]
RNG = np.random.default_rng(0)
X = np.column_stack([RNG.integers(0, 3, 120), RNG.normal(size=(120, 2))]).astype(np.float32)
Y = X[:, 0] + X[:, 1] * X[:, 2]


class Apart(nn.Module):
    """Takes the table apart itself."""

    def __init__(self):
        super().__init__()
        self.town, self.hidden = nn.Embedding(3, 2), nn.Linear(4, 5)
        self.out = nn.Linear(5, 1)

    def forward(self, X):
        return self.by_name(X[:, 1:], X[:, 0])

    def by_name(self, sizes, town):
        found = torch.cat([sizes, self.town(town.long())], dim=1)
        return self.out(torch.tanh(self.hidden(found)))


class ByName(Apart):
    def forward(self, sizes, town):
        return self.by_name(sizes, town)


def named_net(columns, **options):
    return NeuralNetRegressor(
        ByName,
        dataset=NamedInputs,
        dataset__columns=columns,
        max_epochs=15,
        lr=0.05,
        verbose=0,
        **options,
    )


# in the order of the columns, in which the reference inputs are drawn
FORMS = {
    "names": ({"town": "town", "sizes": ["rooms", "area"]}, {"dataset__names": NAMES}),
    "positions": ({"town": 0, "sizes": [1, 2]}, {}),
    "slices": ({"town": 0, "sizes": slice(1, None)}, {}),
    "an array of names": ({"town": 0, "sizes": np.array(NAMES[1:])}, {"dataset__names": NAMES}),
}


@pytest.mark.parametrize("cv", [None, 3])
@pytest.mark.parametrize("form", FORMS)
def test_predictions_are_those_of_a_module_that_slices(form, cv):
    columns, options = FORMS[form]
    plain = NeuralNetRegressor(Apart, max_epochs=15, lr=0.05, verbose=0)
    settings = {"subnetwork_size": 8, "random_state": 0, "cv": cv, "noise": 0.3}
    expected = SubnetLaplaceRegressor(plain, **settings).fit(X, Y)
    model = SubnetLaplaceRegressor(named_net(columns, **options), **settings).fit(X, Y)
    for mine, other in zip(
        model.predict(X, return_std=True), expected.predict(X, return_std=True), strict=True
    ):
        np.testing.assert_allclose(mine, other, rtol=1e-5)
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.predict(X), model.predict(X))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"dataset__columns": None}, "must say which columns"),
        ({"dataset__columns": [0, 1]}, "must say which columns"),
        ({"dataset__columns": {}}, "must say which columns"),
        ({"dataset__columns": {"sizes": ["rooms"], "town": 0}}, "'rooms' is not among the names"),
        (
            {"dataset__columns": {"sizes": "floors", "town": 0}, "dataset__names": NAMES},
            "'floors' is not among the names",
        ),
    ],
)
def test_what_is_no_choice_of_columns_is_refused(options, words):
    net = named_net(None).set_params(**options)
    with pytest.raises(ValueError, match=words):
        MAPRegressor(net).fit(X, Y)
