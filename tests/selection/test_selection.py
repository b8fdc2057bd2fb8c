"""Selection: each score against its formula, candidates, names, and the table."""

import re

import dense
import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from torch import nn

from sksubnet.posterior.curvature import output_energy, plan_for
from sksubnet.predictive.likelihood import Bernoulli, Categorical, Gaussian
from sksubnet.sampling.swag import swag_moments
from sksubnet.selection import reference
from sksubnet.selection.reference import (
    evidence_precision,
    explained_variance,
    reference_inputs,
    reference_rows,
)
from sksubnet.selection.scores import SCORES
from sksubnet.selection.subnetwork import (
    Selector,
    Subnetwork,
    candidate_mask,
    effects,
    explicit_selection,
    n_selected,
    variance_share,
)

RNG = np.random.default_rng(0)
N, P = 40, 45
X = RNG.normal(size=(N, 3))
Y = RNG.integers(3, size=N)
WEIGHTS = RNG.uniform(0.5, 2, size=N)
ALL = torch.ones(P, dtype=torch.bool)


def select(net, selection, size, candidates):
    return Selector(net, selection, candidates).pick(size)


def trained(seed=0):
    """Softmax net 3-6-3 whose second hidden unit leads nowhere."""
    module = dense.mlp(n_outputs=3, seed=1)
    module[2].weight.data[:, 1] = 0
    return dense.trained_net(module, Categorical(), X, Y, WEIGHTS, seed=seed)


def top(scores, size, candidates=None):
    candidates = np.arange(len(scores)) if candidates is None else np.asarray(candidates)
    return sorted(candidates[np.argsort(-np.asarray(scores)[candidates], kind="stable")[:size]])


def test_random_is_uniform_and_depends_on_the_seed_alone():
    candidates = torch.zeros(P, dtype=torch.bool)
    candidates[5:25] = True
    counts = np.zeros(P)
    for seed in range(600):
        counts[select(trained(seed), "random", 6, candidates).indices] += 1
    # 180 expected of 600, standard deviation 11
    assert (np.abs(counts[5:25] - 180) < 50).all()
    assert counts.sum() == counts[5:25].sum() == 3600
    torch.manual_seed(1)
    first = select(trained(3), "random", 6, candidates).indices
    torch.manual_seed(2)
    assert (select(trained(3), "random", 6, candidates).indices == first).all()
    assert (select(trained(4), "random", 6, candidates).indices != first).any()


def test_random_subnetworks_of_one_seed_are_nested():
    smaller = set(select(trained(), "random", 7, ALL).indices)
    assert smaller < set(select(trained(), "random", 8, ALL).indices)


@pytest.mark.parametrize("size", [1, 10, 44])
def test_magnitude_is_the_largest_absolute_values(size):
    net = trained()
    expected = top(np.abs(dense.weight_vector(net.module)), size)
    subnetwork = select(net, "magnitude", size, ALL)
    assert subnetwork.indices.tolist() == expected
    assert len(subnetwork) == size
    assert subnetwork.n_weights == P


def test_variance_is_the_literal_rule_and_prefers_dead_weights():
    net = trained()
    J = dense.jacobian(net.module, X)
    hessian = dense.softmax_hessian(dense.evaluate(net.module, X))
    variance = 1 / (np.diag(dense.ggn(J, hessian, WEIGHTS)) + 1)
    for size in (4, 12, 30):
        assert select(net, "variance", size, ALL).indices.tolist() == top(variance, size)
    # The incoming weights and bias of the unit that leads nowhere come first.
    assert select(net, "variance", 4, ALL).indices.tolist() == [3, 4, 5, 19]


def dense_ggn(net):
    J = dense.jacobian(net.module, X)
    return dense.ggn(J, dense.softmax_hessian(dense.evaluate(net.module, X)), WEIGHTS)


def gradient(net):
    """Mean over random inputs of the squared gradient of a random, centred output."""
    inputs = reference_inputs(net)
    return (reference_rows(net, inputs, torch.arange(P)).numpy() ** 2).mean(axis=0)


def leverage(net):
    ggn = dense_ggn(net)
    delta = evidence_precision(torch.linalg.eigvalsh(torch.tensor(ggn)), net.weight_vector())
    return 1 - delta * np.diag(np.linalg.inv(ggn + delta * np.eye(P)))


ORACLES = {
    "gradient": gradient,
    "saliency": lambda net: dense.weight_vector(net.module) ** 2 * np.diag(dense_ggn(net)) / 2,
    "leverage": leverage,
}
INERT = [3, 4, 5, 19]


@pytest.mark.parametrize("name", ORACLES)
def test_scores_are_their_formulas(name):
    net = trained()
    expected = ORACLES[name](net)
    assert_allclose(SCORES[name](net), expected, atol=1e-9 * expected.max())
    for size in (5, 20):
        assert select(net, name, size, ALL).indices.tolist() == top(expected, size)


@pytest.mark.parametrize("name", [*ORACLES, "greedy"])
def test_weights_without_influence_are_never_chosen_while_others_remain(name):
    net = trained()  # with weights of zero that do have influence
    assert not set(INERT) & set(select(net, name, P - 4, ALL).indices)
    assert set(select(net, name, P - 3, ALL).indices) & set(INERT)


def test_greedy_keeps_more_than_any_score_and_says_how_much():
    net, candidates = trained(), ALL.clone()
    candidates[::4] = False
    indices = candidates.nonzero().squeeze(1)
    kept = {}
    for name in ("greedy", "gradient", "saliency", "leverage", "magnitude", "random", "variance"):
        subnetwork = select(net, name, 6, candidates)
        assert len(subnetwork) == 6
        assert candidates[subnetwork.indices].all()
        assert (np.diff(subnetwork.indices) > 0).all()
        kept[name] = explained_variance(net, torch.as_tensor(subnetwork.indices), indices)
    assert max(kept, key=kept.__getitem__) == "greedy"
    subnetwork = select(net, "greedy", 6, candidates)
    assert subnetwork.explained_variance == pytest.approx(kept["greedy"], rel=0.01)
    assert subnetwork.explained_curve.shape == (6,)
    assert (np.diff(subnetwork.explained_curve) > 0).all()
    assert select(net, "random", 6, candidates).explained_variance is None


def test_greedy_depends_on_the_seed_alone():
    torch.manual_seed(1)
    first = select(trained(3), "greedy", 6, ALL)
    torch.manual_seed(2)
    again = select(trained(3), "greedy", 6, ALL)
    assert (first.indices == again.indices).all()
    assert first.explained_variance == again.explained_variance
    net, state = trained(4), torch.get_rng_state()
    other = select(net, "greedy", 6, ALL)
    assert torch.equal(torch.get_rng_state(), state)
    assert (other.explained_curve != first.explained_curve).all()


def test_greedy_takes_all_candidates_when_asked_to():
    assert select(trained(), "greedy", P, ALL).indices.tolist() == list(range(P))


@pytest.mark.parametrize("percent", [1, 50, 97.5])
def test_a_size_may_be_a_share_of_the_predictive_variance(percent):
    size = f"{percent}% variance"
    net, share = trained(), variance_share(size, "greedy")
    assert share == percent / 100
    assert n_selected(size, P) == P
    subnetwork = select(net, "greedy", size, ALL)
    assert subnetwork.explained_variance >= share
    some = torch.as_tensor(subnetwork.indices)
    kept = explained_variance(net, some, torch.arange(P))
    assert kept == pytest.approx(subnetwork.explained_variance, rel=0.01)
    assert (subnetwork.explained_curve[:-1] < share).all()
    assert subnetwork.explained_curve[-1] >= share


@pytest.mark.parametrize("size", ["0% variance", "100% variance", "200% variance"])
def test_a_share_of_the_variance_is_between_none_and_all(size):
    with pytest.raises(ValueError, match="not between 0% and 100% variance; 'all'"):
        variance_share(size, "greedy")


@pytest.mark.parametrize("selection", ["swag", [0, 3], "last_layer"])
def test_a_share_of_the_variance_needs_the_search(selection):
    message = rf"'90% variance' needs selection='greedy'.*{re.escape(repr(selection))}"
    with pytest.raises(ValueError, match=message):
        variance_share("90% variance", selection)


def test_a_share_may_need_more_than_the_shortlist(monkeypatch):
    expected = select(trained(), "greedy", "99% variance", ALL)
    monkeypatch.setattr(reference, "SHORTLIST", 5)
    found = select(trained(), "greedy", "99% variance", ALL)
    assert len(found) > 5
    np.testing.assert_array_equal(found.indices, expected.indices)


def test_a_share_that_too_few_candidates_keep(monkeypatch):
    monkeypatch.setattr(reference, "N_SAMPLED", 5)
    message = r"The 5 most influential of the 45 candidates keep \d+\.\d% .* not 99.0%"
    with pytest.raises(ValueError, match=message):
        select(trained(), "greedy", "99% variance", ALL)


def slow_swag(module, loss, X, y, weights, n_snapshots, batch_size, lr):
    """Momentum SGD by hand in NumPy, then the variance of the stored snapshots."""
    w = dense.weight_vector(module).copy()
    velocity, snapshots = np.zeros_like(w), []
    shapes = [(name, p.shape, p.numel()) for name, p in module.named_parameters()]

    def objective(flat, rows):
        parameters, start = {}, 0
        for name, shape, size in shapes:
            parameters[name] = flat[start : start + size].view(shape)
            start += size
        outputs = torch.func.functional_call(module, parameters, (X[rows],))
        losses = torch.stack([loss(f, t) for f, t in zip(outputs, y[rows], strict=True)])
        return (losses * weights[rows]).sum() / weights[rows].sum()

    first = True
    for _ in range(n_snapshots):
        for rows in torch.randperm(len(X)).split(batch_size):
            flat = torch.tensor(w, requires_grad=True)
            (gradient,) = torch.autograd.grad(objective(flat, rows), flat)
            gradient = gradient.numpy() + 3e-4 * w
            velocity = gradient if first else 0.9 * velocity + gradient
            first = False
            w = w - lr * velocity
        snapshots.append(w)
    return np.mean(snapshots, axis=0), np.var(snapshots, axis=0, ddof=1)


SWAG_CASES = {
    "softmax": (Categorical(), Y, nn.functional.cross_entropy, 3),
    "logit": (
        Bernoulli(),
        (Y > 0).astype(float),
        lambda f, t: nn.functional.binary_cross_entropy_with_logits(f[0], t),
        1,
    ),
    # The path has no noise variance in it: half the squared error, as in training.
    "gaussian": (
        Gaussian(torch.tensor([0.1, 5.0], dtype=torch.float64)),
        RNG.normal(size=(N, 2)),
        lambda f, t: (f - t).square().sum() / 2,
        2,
    ),
}


@pytest.mark.parametrize("name", SWAG_CASES)
def test_swag_is_the_variance_of_snapshots_along_sgd(name):
    likelihood, y, loss, n_outputs = SWAG_CASES[name]
    module = dense.mlp(n_outputs=n_outputs)
    net = dense.trained_net(module, likelihood, X, y, WEIGHTS)
    before = dense.weight_vector(module).copy()
    state = torch.get_rng_state()
    moments = swag_moments(net, n_snapshots=8, batch_size=12, lr=0.02)
    assert torch.equal(torch.get_rng_state(), state)
    mean, variance = moments.mean, moments.variance
    torch.manual_seed(net.seed)
    rows = net.train
    expected = slow_swag(module, loss, rows.X, rows.y, rows.weights, 8, 12, 0.02)
    assert_allclose(mean, expected[0], rtol=1e-9, atol=1e-12)
    assert_allclose(variance, expected[1], rtol=1e-7, atol=1e-14)
    assert (dense.weight_vector(module) == before).all()
    assert all(p.grad is None for p in module.parameters())


def test_swag_selection_takes_the_largest_variances():
    net = trained()
    variance = swag_moments(net).variance
    assert select(net, "swag", 9, ALL).indices.tolist() == top(variance, 9)


def test_swag_lowers_a_learning_rate_that_diverges():
    module = dense.mlp(n_outputs=1)
    y = 1e3 * RNG.normal(size=(N, 1))
    net = dense.trained_net(
        nn.Sequential(module, nn.Linear(1, 1).double()),
        Gaussian(torch.ones(1, dtype=torch.float64)),
        30 * X,
        y,
    )
    variance = swag_moments(net, n_snapshots=5, lr=1e3).variance
    assert torch.isfinite(variance).all()
    with pytest.raises(ValueError, match=r"diverged down to lr=1e\+27.*Scale the inputs"):
        swag_moments(net, n_snapshots=5, lr=1e30)


def test_swag_leaves_frozen_weights_and_running_statistics_alone():
    module = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 3)).double().eval()
    module[0].weight.requires_grad_(False)
    before = module[1].running_mean.clone()
    variance = swag_moments(dense.trained_net(module, Categorical(), X, Y), n_snapshots=4).variance
    assert (variance[:12] == 0).all()
    assert (variance[24:36] > 0).all()
    assert torch.equal(module[1].running_mean, before)
    assert not module.training


def test_callable_scores():
    net = trained()
    scores = RNG.permutation(P)
    asked = []

    def score(value):
        asked.append(value)
        return scores

    assert select(net, score, 11, ALL).indices.tolist() == top(scores, 11)
    assert asked == [net]
    candidates = ALL.clone()
    candidates[::2] = False
    expected = top(scores, 5, np.arange(1, P, 2))
    assert select(net, score, 5, candidates).indices.tolist() == expected


@pytest.mark.parametrize(
    "scores", [np.zeros(P - 1), np.zeros((P, 1)), np.full(P, np.nan), np.full(P, np.inf)]
)
def test_scores_must_be_one_finite_number_a_weight(scores):
    with pytest.raises(ValueError, match=f"one finite score for each of the {P} weights"):
        select(trained(), lambda value: scores, 3, ALL)


def test_ties_go_to_the_first_weights():
    subnetwork = select(trained(), lambda value: torch.zeros(P), 3, ALL)
    assert subnetwork.indices.tolist() == [0, 1, 2]


class Mixed(nn.Module):
    """Every kind of parameter that is or is not a candidate."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Linear(3, 2)
        self.norms = nn.Sequential(nn.LayerNorm(2), nn.BatchNorm1d(2), nn.GroupNorm(1, 2))
        self.scale = nn.Parameter(torch.ones(2))
        self.bias_free = nn.Linear(2, 2, bias=False)
        self.frozen = nn.Linear(2, 2)
        self.frozen.requires_grad_(False)

    def forward(self, X):
        return self.frozen(self.bias_free(self.norms(self.embedding(X)) * self.scale))


def names_of(mask, module):
    """Names of the parameters that the mask covers fully; none may be covered in part."""
    found, start = [], 0
    for name, parameter in module.named_parameters():
        part = mask[start : start + parameter.numel()]
        assert part.all() or not part.any()
        found += [name] if part.all() else []
        start += parameter.numel()
    assert start == len(mask)
    return found


@pytest.mark.parametrize(
    ("candidates", "expected"),
    [
        ("weights", ["scale", "embedding.weight", "bias_free.weight"]),
        (
            "all",
            [
                "scale",
                "embedding.weight",
                "embedding.bias",
                *(f"norms.{i}.{kind}" for i in range(3) for kind in ("weight", "bias")),
                "bias_free.weight",
            ],
        ),
        (["norms.1", "scale"], ["scale", "norms.1.weight", "norms.1.bias"]),
        ("embedding", ["embedding.weight", "embedding.bias"]),
        (np.arange(2), ["scale"]),
    ],
    ids=str,
)
def test_candidates(candidates, expected):
    module = Mixed()
    assert names_of(candidate_mask(module, candidates), module) == expected


def test_a_name_is_not_a_prefix():
    module = nn.ModuleDict({"fc": nn.Linear(2, 2), "fc2": nn.Linear(2, 2)})
    assert names_of(candidate_mask(module, "fc"), module) == ["fc.weight", "fc.bias"]


def test_last_layer_is_the_last_with_trainable_parameters():
    module = Mixed()
    mask = explicit_selection(module, "last_layer", candidate_mask(module, "weights"))
    assert names_of(mask, module) == ["bias_free.weight"]


@pytest.mark.parametrize(
    ("candidates", "message"),
    [
        ("nonsense", r"candidates='nonsense' is unknown.*'all', 'weights'.*'embedding'"),
        (["scale", "nope"], r"candidates='nope' is unknown"),
        ([0, 32], r"indices from 0 to 32; the net's weights are numbered 0 to 31"),
        ([-1], r"indices from -1 to -1"),
        ([31], r"contains frozen weights"),
        (np.zeros(32, bool), r"candidates selects no weight"),
        (np.zeros(31, bool), r"dtype bool and shape \(31,\).*boolean mask of shape \(32,\)"),
        ([0.5], r"dtype float64"),
        ([], r"shape \(0,\)"),
    ],
)
def test_unknown_candidates(candidates, message):
    with pytest.raises(ValueError, match=message):
        candidate_mask(Mixed(), candidates)


@pytest.mark.parametrize(
    ("size", "expected"), [("all", 30), (1.0, 30), (0.1, 3), (1e-9, 1), (7, 7), (30, 30)]
)
def test_size(size, expected):
    assert n_selected(size, 30) == expected


@pytest.mark.parametrize(
    ("n_candidates", "expected"), [(30, 30), (900, 100), (9000, 450), (10**7, 500)]
)
def test_size_by_default_is_a_twentieth_within_limits(n_candidates, expected):
    assert n_selected("auto", n_candidates) == expected


def test_size_beyond_the_candidates():
    with pytest.raises(ValueError, match=r"31 exceeds the 30 candidate.*<= 30.*'all'"):
        n_selected(31, 30)


def test_table():
    subnetwork = select(trained(), [0, 17, 18, 44], 4, ALL)
    assert subnetwork.table().splitlines() == [
        "parameter   selected         of  share",
        "0.weight           2         18  11.1%",
        "0.bias             1          6  16.7%",
        "2.weight           0         18   0.0%",
        "2.bias             1          3  33.3%",
        "all                4         45   8.9%",
    ]


def plan_of(net, subnetwork):
    return plan_for(net, torch.as_tensor(subnetwork.indices))


def test_effects_of_parts_count_inert_weights_and_compare_energies():
    net = trained()
    everything = plan_of(net, Subnetwork(np.arange(P), P))
    energy = output_energy(net, everything).numpy()
    dead, some = torch.tensor([3, 4, 5, 19]), torch.tensor([0, 4, 20, 44])
    found = effects(net, everything, [dead, torch.arange(P), some], ALL)
    assert found[:2] == [(0.0, 4), (pytest.approx(1.0), 4)]
    ratio, n_inert = found[2]
    assert n_inert == 1
    generator = torch.Generator().manual_seed(net.seed)
    typical = energy[torch.randperm(P, generator=generator)[:4].numpy()].mean()
    assert ratio == pytest.approx(energy[some].mean() / typical, rel=1e-9)
    alone = plan_of(net, Subnetwork(some.numpy(), P))
    assert effects(net, alone, [torch.arange(4)], ALL) == [(pytest.approx(ratio), 1)]


@pytest.mark.parametrize("name", [*SCORES, "greedy", "last_layer"])
def test_several_sizes_are_those_of_single_selectors(name):
    sizes = [30, 3, "all", 8, 0.5, 3]
    together = Selector(trained(), name, ALL).pick_each(sizes)
    for size, found in zip(sizes, together, strict=True):
        alone = select(trained(), name, size, ALL)
        np.testing.assert_array_equal(found.indices, alone.indices)
        assert found.layers == alone.layers
        if alone.explained_curve is not None:
            assert_allclose(found.explained_curve, alone.explained_curve, rtol=1e-9)
            assert found.explained_variance == pytest.approx(alone.explained_variance, rel=1e-9)


def test_scores_are_computed_once_for_all_sizes():
    calls = []

    def scores(net):
        calls.append(1)
        return SCORES["random"](net)

    Selector(trained(), scores, ALL).pick_each([3, 9, 30])
    assert len(calls) == 1
