"""Greedy selection against dense linear algebra and exhaustive search."""

from itertools import combinations

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from sksubnet.selection import greedy
from sksubnet.selection.greedy import choose, grow
from sksubnet.selection.sweep import Sweep, dual_variance

DELTA = 0.7


def problem(n=5, m=4, n_candidates=12, seed=0, scale=1.0):
    """Factors, and reference rows whose variance under all candidates is one."""
    rng = np.random.default_rng(seed)
    factors = scale * rng.normal(size=(n, n_candidates)) * rng.uniform(0.2, 2, size=n_candidates)
    references = rng.normal(size=(m, n_candidates)) * rng.uniform(0.2, 2, size=n_candidates)
    full = variances(factors, references, range(n_candidates))
    return torch.tensor(factors), torch.tensor(references / np.sqrt(full)[:, None])


def variances(factors, references, chosen, delta=DELTA):
    """diag(A_S H_SS⁻¹ A_Sᵀ) by the inverse of the dense precision."""
    chosen = list(chosen)
    phi, rows = np.asarray(factors)[:, chosen], np.asarray(references)[:, chosen]
    return np.diag(rows @ np.linalg.inv(phi.T @ phi + delta * np.eye(len(chosen))) @ rows.T)


def objective(factors, references, chosen):
    return np.sqrt(variances(factors, references, chosen)).sum() if len(chosen) else 0.0


def exhaustive_greedy(factors, references, size):
    chosen = []
    for _ in range(size):
        rest = [j for j in range(factors.shape[1]) if j not in chosen]
        chosen.append(max(rest, key=lambda j: objective(factors, references, [*chosen, j])))
    return chosen


def test_weights_enter_and_leave_exactly():
    factors, references = problem()
    sweep = Sweep.empty(factors, references, DELTA)
    inside: set[int] = set()
    for block in ([3], [0, 7], [11, 5, 2], [7], [3, 5], [4], [7]):
        before = sweep.variances
        sweep, changes = sweep.moved(torch.tensor(block))
        entering = not inside & set(block)
        for k in range(len(block)):
            changed = inside ^ set(block[: k + 1])
            expected = variances(factors, references, sorted(changed)) if changed else 0
            sign = 1 if entering else -1
            assert_allclose(before + sign * changes[: k + 1].sum(0), expected, rtol=1e-9)
        inside ^= set(block)
        members = sorted(inside)
        assert sweep.inside.nonzero().squeeze(1).tolist() == members
        assert_allclose(sweep.variances, variances(factors, references, members), rtol=1e-10)
        now = objective(factors, references, members)
        assert sweep.objective() == pytest.approx(now, rel=1e-10)
        for j in range(12):
            if j not in inside:
                gain = objective(factors, references, [*members, j]) - now
                assert float(sweep.gains()[j]) == pytest.approx(gain, rel=1e-8)
        losses = [now - objective(factors, references, sorted(inside - {j})) for j in members]
        assert_allclose(sweep.losses(torch.tensor(members)), losses, atol=1e-7)


@pytest.mark.parametrize("seed", range(5))
def test_greedy_is_the_exhaustive_search_of_each_step(seed):
    factors, references = problem(seed=seed)
    chosen = grow(factors, references, DELTA, 8)
    assert chosen.indices.tolist() == exhaustive_greedy(factors, references, 8)


@pytest.mark.parametrize("size", [1, 7, 12])
def test_explained_variance_is_the_dense_ratio(size):
    factors, references = problem()
    chosen = grow(factors, references, DELTA, size)
    order = chosen.indices.tolist()
    expected = [variances(factors, references, order[: k + 1]).mean() for k in range(size)]
    assert_allclose(chosen.curve, expected, rtol=1e-10)
    assert (np.diff(chosen.curve) > 0).all()
    assert_allclose(chosen.shares, variances(factors, references, order), rtol=1e-10)
    if size == 12:
        assert_allclose(chosen.shares, 1, rtol=1e-10)


def test_exchange_never_lowers_the_objective_and_mostly_finds_the_best_subset():
    found = []
    for seed in range(40):
        factors, references = problem(seed=seed, n_candidates=10)
        plain, exchanged = (f(factors, references, DELTA, 3) for f in (grow, choose))
        values = [objective(factors, references, c.indices.tolist()) for c in (plain, exchanged)]
        best = max(objective(factors, references, s) for s in combinations(range(10), 3))
        assert values[0] - 1e-12 <= values[1] <= best + 1e-12
        assert len(set(exchanged.indices.tolist())) == 3
        assert_allclose(
            exchanged.shares, variances(factors, references, exchanged.indices), rtol=1e-9
        )
        found.append([value > best - 1e-12 for value in values])
        again = exhaustive_exchange(factors, references, exchanged.indices.tolist())
        assert objective(factors, references, again) < values[1] * (1 + greedy.TOLERANCE)
    plain, exchanged = np.mean(found, axis=0)
    assert exchanged >= 0.8
    assert exchanged > plain


def test_blocks_lose_little(monkeypatch):
    factors, references = problem(n=40, m=30, n_candidates=300)
    in_blocks = grow(factors, references, DELTA, 120)
    order = in_blocks.indices.tolist()
    assert sorted(set(order)) == sorted(order)
    expected = [variances(factors, references, order[:k]).mean() for k in (1, 40, 77, 120)]
    assert_allclose(in_blocks.curve[[0, 39, 76, 119]], expected, rtol=1e-9)
    exchanged = choose(factors, references, DELTA, 120)
    monkeypatch.setattr(greedy, "BLOCKS", 1000)
    one_by_one = grow(factors, references, DELTA, 120)
    monkeypatch.undo()
    values = [float(c.shares.sqrt().sum()) for c in (in_blocks, one_by_one, exchanged)]
    assert values[0] > 0.99 * values[1]
    assert values[2] > values[0]


def exhaustive_exchange(factors, references, members):
    """Each weight, the least useful first, gives its place to the best where that is better."""
    members = sorted(
        members, key=lambda i: -objective(factors, references, [j for j in members if j != i])
    )
    for i in list(members):
        others = [j for j in members if j != i]
        rest = [j for j in range(factors.shape[1]) if j not in others]
        members = [*others, max(rest, key=lambda j: objective(factors, references, [*others, j]))]
    return sorted(members)


@pytest.mark.parametrize("seed", range(8))
def test_pruning_and_exchange_are_exhaustive_searches_of_each_step(seed):
    factors, references = problem(seed=seed)
    members = sorted(np.random.default_rng(seed).permutation(12)[:7].tolist())
    sweep = Sweep.empty(factors, references, DELTA).moved(torch.tensor(members))[0]
    exchanged = greedy._exchanged(sweep).members().tolist()
    assert exchanged == exhaustive_exchange(factors, references, members)
    for size in (6, 5, 4):
        subsets = [[j for j in members if j != i] for i in members]
        members = max(subsets, key=lambda s: objective(factors, references, s))
        assert greedy._pruned_to(sweep, size).members().tolist() == members


def test_letting_more_in_first_finds_better_subsets(monkeypatch):
    problems = [problem(seed=seed, n=8, m=3, n_candidates=14, scale=5.0) for seed in range(40)]
    totals = []
    for excess in (1, 2):
        monkeypatch.setattr(greedy, "EXCESS", excess)
        totals.append(sum(choose(*parts, DELTA, 4).objective() for parts in problems))
    assert totals[1] > totals[0]


def test_exchanging_blocks_never_lowers_the_objective():
    for seed in range(3):
        factors, references = problem(n=40, m=30, n_candidates=120, seed=seed)
        sweep = Sweep.empty(factors, references, DELTA).moved(torch.arange(100))[0]
        for _ in range(5):
            before, sweep = sweep.objective(), greedy._exchanged(sweep)
            assert sweep.objective() >= before
            assert int(sweep.inside.sum()) == 100


def test_slopes_are_the_gains_of_a_small_step():
    """The sum of sqrt(v + t e) has the slope sum(e / sqrt(v)) / 2 in t; a floor keeps it finite."""
    factors, references = problem(n_candidates=30)
    sweep, _ = Sweep.empty(factors, references, DELTA).moved(torch.arange(8))
    before = variances(factors, references, range(8))
    added = np.stack([variances(factors, references, [*range(8), j]) for j in range(8, 30)])
    expected = ((added - before) / np.sqrt(before)).sum(1)
    assert_allclose(sweep.slopes()[8:], expected, rtol=1e-9)
    assert (sweep.slopes()[:8] == -1).all()
    assert torch.isfinite(Sweep.empty(factors, references, DELTA).slopes()).all()


def test_large_subnetworks_lose_little_by_the_faster_search(monkeypatch):
    factors, references = problem(n=60, m=40, n_candidates=900)
    monkeypatch.setattr(greedy, "PATIENT", 50)
    fast = choose(factors, references, DELTA, 200)
    assert len(set(fast.indices.tolist())) == 200
    assert_allclose(fast.shares, variances(factors, references, fast.indices), rtol=1e-9)
    assert_allclose(fast.curve[-1], fast.shares.mean(), rtol=1e-9)
    monkeypatch.setattr(greedy, "PATIENT", 10**6)
    monkeypatch.setattr(greedy, "BLOCKS", 1000)
    exact = grow(factors, references, DELTA, 200)
    assert fast.objective() > 0.97 * exact.objective()


@pytest.mark.parametrize("n_blocks", [8, 32])
def test_block_sizes(n_blocks):
    sizes = greedy._block_sizes(1000, n_blocks)
    assert sizes[:n_blocks] == [1] * n_blocks
    assert sum(sizes) == 1000
    inside = np.cumsum([0, *sizes])[:-1]
    assert (np.array(sizes[:-1]) == 1 + inside[:-1] // n_blocks).all()
    assert len(sizes) < 5 * n_blocks + 10


@pytest.mark.parametrize("patient", [True, False])
@pytest.mark.parametrize("sizes", [[1, 7, 40, 41, 90], [90, 7, 7, 41]], ids=["up", "down"])
def test_a_growth_goes_on_as_if_it_had_never_stopped(patient, sizes):
    factors, references = problem(n=20, m=10, n_candidates=120)
    growth = greedy.Growth.of(factors, references, DELTA, patient)
    for size in sizes:
        sweep, order, curve = growth.to(size)
        alone = greedy.Growth.of(factors, references, DELTA, patient).to(size)
        assert order.tolist() == alone[1].tolist()
        assert sorted(order.tolist()) == sweep.members().tolist()
        assert_allclose(curve, alone[2], rtol=1e-12)
        assert_allclose(sweep.variances, variances(factors, references, order), rtol=1e-9)


def test_a_growth_takes_as_many_steps_for_several_sizes_as_for_the_largest(monkeypatch):
    factors, references = problem(n=20, m=10, n_candidates=120)
    steps = []
    best = Sweep.best
    monkeypatch.setattr(Sweep, "best", lambda sweep, n: steps.append(1) or best(sweep, n))
    growth = greedy.Growth.of(factors, references, DELTA, patient=True)
    for size in (5, 20, 80):
        growth.to(size)
    assert len(steps) == len(growth.stops(80))


@pytest.mark.parametrize("n_inside", [0, 1, 10, 80])
@pytest.mark.parametrize("spread", [0.1, 3.0])
def test_the_best_are_those_of_the_largest_gains(n_inside, spread):
    factors, references = problem(n=30, m=20, n_candidates=600)
    generator = torch.Generator().manual_seed(n_inside)
    scale = (spread * torch.randn(600, generator=generator, dtype=torch.float64)).exp()
    factors, references = factors * scale, references * scale
    references[3] = 0  # seen by no weight
    factors[:, 500:550], references[:, 500:550] = factors[:, :50], references[:, :50]  # twins
    sweep = Sweep.empty(factors, references, DELTA)
    if n_inside:
        sweep, _ = sweep.moved(torch.randperm(600, generator=generator)[:n_inside])
    by_gain = torch.sort(sweep.gains(), descending=True, stable=True)
    for n in (1, 5, 70, 300):
        found = sweep.best(n)
        assert_allclose(sweep.gains()[found], by_gain.values[:n], rtol=1e-12)
        assert len(set(found.tolist())) == n and not sweep.inside[found].any()


def test_weights_without_influence_come_last():
    factors, references = problem(n_candidates=9)
    inert = [0, 4, 8]
    factors[:, inert] = references[:, inert] = 0
    # Influence so small that it is lost in a difference of objectives
    factors[:, 5], references[:, 5] = 0, 1e-11 * references[:, 5]
    order = grow(factors, references, DELTA, 9).indices.tolist()
    assert order[5:] == [5, *inert]
    for search in (grow, choose):
        found = set(search(factors, references, DELTA, 6).indices.tolist())
        assert found == set(range(9)) - set(inert)


def test_a_weight_that_sets_others_free_is_worth_its_place():
    """The data pin w0 + w1, the reference asks for w1 alone: only together do they vary."""
    factors = torch.tensor([[30.0, 30.0, 0.0]])
    references = torch.tensor([[0.0, 1.0, 0.2]])
    kept = choose(factors, references, 1.0, 2)
    assert sorted(kept.indices.tolist()) == [0, 1]
    assert float(kept.shares) == pytest.approx(901 / 1801)


def test_ties_go_to_the_first():
    factors, references = problem(n_candidates=4)
    factors, references = factors.repeat(1, 3), references.repeat(1, 3)
    first = choose(factors, references, DELTA, 1).indices.tolist()
    assert first == exhaustive_greedy(factors[:, :4], references[:, :4], 1)
    zeros = torch.zeros(3, 6), torch.zeros(2, 6)
    assert grow(*zeros, DELTA, 3).indices.tolist() == [0, 1, 2]
    assert choose(*zeros, DELTA, 3).indices.tolist() == [0, 1, 2]


@pytest.mark.parametrize("share", [1e-9, 0.5, 0.8, 1.0, 1.5])
def test_the_smallest_subnetwork_that_keeps_a_share(share):
    factors, references = problem(n=20, m=10, n_candidates=60)
    curve = grow(factors, references, DELTA, 60).curve
    chosen = grow(factors, references, DELTA, 60, share=share)
    enough = (curve >= share).nonzero()
    n_expected = int(enough[0]) + 1 if len(enough) else 60
    assert len(chosen.indices) == len(chosen.curve) == n_expected
    assert_allclose(chosen.shares, variances(factors, references, chosen.indices), rtol=1e-9)
    assert float(chosen.shares.mean()) >= min(share, 1 - 1e-9)


def test_weights_that_the_data_pin_firmly():
    """Precisions of 1e8 times the prior's: what is reported is still the dense value."""
    factors, references = problem(scale=1e4, n=20, n_candidates=40)
    plain, exchanged = (f(factors, references, DELTA, 15) for f in (grow, choose))
    for chosen in (plain, exchanged):
        expected = variances(factors, references, chosen.indices)
        assert_allclose(chosen.shares, expected, rtol=1e-5, atol=1e-7)
    assert exchanged.shares.sqrt().sum() >= plain.shares.sqrt().sum()


def test_single_precision_rows_are_searched_in_double():
    factors, references = problem(seed=3)
    chosen = choose(factors.float(), references.float(), DELTA, 6)
    assert chosen.shares.dtype == torch.float64
    again = choose(factors.float().double(), references.float().double(), DELTA, 6)
    assert torch.equal(chosen.indices, again.indices)


def test_dual_variance_is_that_of_the_dense_posterior():
    factors, references = problem(n=6, n_candidates=30)
    own = references.square().sum(1)
    for delta in (1e-6, 0.3, 1e4):
        found = dual_variance(
            torch.linalg.eigh(factors @ factors.mT), references @ factors.mT, own, delta
        )
        assert_allclose(found, variances(factors, references, range(30), delta), rtol=1e-8)
