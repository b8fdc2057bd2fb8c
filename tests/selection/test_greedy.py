"""Greedy selection against dense linear algebra and exhaustive search."""

from itertools import combinations

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from sksubnet.selection import greedy, sweep
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
    """The objective is sum(sqrt(v)): to first order, what v gains counts by 1 / sqrt(v)."""
    chosen = []
    for _ in range(size):
        before = variances(factors, references, chosen) if chosen else np.zeros(len(references))
        weights = 1 / np.sqrt(np.maximum(before, sweep.FLOOR))
        rest = [j for j in range(factors.shape[1]) if j not in chosen]
        after = [variances(factors, references, [*chosen, j]) for j in rest]
        chosen.append(rest[int(np.argmax((after - before) @ weights))])
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
        assert_allclose(sweep.losses()[members], losses, atol=1e-7)
        assert torch.isinf(sweep.losses()).sum() == 12 - len(members)


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


def test_blocks_lose_little_and_leaving_gains_more(monkeypatch):
    factors, references = problem(n=40, m=30, n_candidates=300)
    in_blocks = grow(factors, references, DELTA, 120)
    order = in_blocks.indices.tolist()
    assert sorted(set(order)) == sorted(order)
    expected = [variances(factors, references, order[:k]).mean() for k in (1, 40, 77, 120)]
    assert_allclose(in_blocks.curve[[0, 39, 76, 119]], expected, rtol=1e-9)
    chosen = choose(factors, references, DELTA, 120)
    monkeypatch.setattr(greedy, "ENTERING", 1000)
    monkeypatch.setattr(greedy, "LEAVING", 1000)
    singly = [search(factors, references, DELTA, 120) for search in (grow, choose)]
    values = [float(c.shares.sqrt().sum()) for c in (in_blocks, chosen, *singly)]
    assert values[0] > 0.98 * values[2]
    assert values[1] > 0.99 * values[3]
    assert values[1] > values[0]


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
def test_leaving_and_exchange_are_exhaustive_searches_of_each_step(seed):
    factors, references = problem(seed=seed)
    members = sorted(np.random.default_rng(seed).permutation(12)[:7].tolist())
    start = sweep.Sweep.empty(factors, references, DELTA)
    full = start.moved(torch.tensor(members))[0]
    exchanged = greedy._exchanged(full).members().tolist()
    assert exchanged == exhaustive_exchange(factors, references, members)
    everything = torch.tensor(members)
    order = everything[greedy._last_to_leave(full.among(everything), 3)].tolist()
    assert sorted(order) == members
    for size in (6, 5, 4, 3):
        subsets = [[j for j in members if j != i] for i in members]
        members = max(subsets, key=lambda s: objective(factors, references, s))
        assert sorted(order[:size]) == members


def test_letting_more_in_first_finds_better_subsets(monkeypatch):
    problems = [problem(seed=seed, n=8, m=3, n_candidates=14, scale=5.0) for seed in range(40)]
    totals = []
    for pool in (4, 8):
        monkeypatch.setattr(greedy, "POOL", pool)
        totals.append(sum(choose(*parts, DELTA, 4).objective() for parts in problems))
    assert totals[1] > totals[0]


def test_exchanges_never_lower_the_objective():
    for seed in range(3):
        factors, references = problem(n=40, m=30, n_candidates=120, seed=seed)
        now = sweep.Sweep.empty(factors, references, DELTA).moved(torch.arange(50))[0]
        for _ in range(5):
            before, now = now.objective(), greedy._exchanged(now)
            assert now.objective() >= before
            assert int(now.inside.sum()) == 50


def test_exchanges_that_rounding_forbids_are_left_out(monkeypatch):
    """A factor that does not exist for the first weight to go leaves the exchanges of others."""
    factors, references = problem(n=40, m=30, n_candidates=120)
    start = sweep.Sweep.empty(factors, references, DELTA).moved(torch.arange(50))[0]
    plain = set(greedy._exchanged(start).members().tolist())
    weakest_first = start.losses().argsort(stable=True).tolist()
    pinned = next(k for k in weakest_first if k not in plain)
    moved = sweep.Sweep.moved

    def refusing(self, block):
        if block.tolist() == [pinned]:
            raise torch.linalg.LinAlgError("not positive-definite")
        return moved(self, block)

    monkeypatch.setattr(sweep.Sweep, "moved", refusing)
    found = greedy._exchanged(start)
    assert pinned in found.members() and len(found.members()) == 50
    assert len(set(range(50)) - set(found.members().tolist())) > 1
    assert found.objective() > start.objective()


@pytest.mark.parametrize("sizes", [[2, 5, 20, 31, 60], [60, 20, 31, 2, 5]], ids=["up", "down"])
def test_a_pool_gives_several_sizes_what_each_alone_finds(sizes):
    """Also where a block that leaves is cut by one size and not by another."""
    factors, references = problem(n=20, m=10, n_candidates=120)
    growth = greedy.Growth.of(factors, references, DELTA)
    _, order, curve = growth.to(90)
    pool = greedy.Pool(growth.start, order, curve)
    for size in sizes:
        alone = greedy.Pool(growth.start, order, curve).choose(size)
        found = pool.choose(size)
        assert sorted(found.indices.tolist()) == sorted(alone.indices.tolist())
        assert set(found.indices.tolist()) <= set(order.tolist())
        expected = variances(factors, references, found.indices)
        assert_allclose(found.shares, expected, rtol=1e-9)
        assert found.objective() >= objective(factors, references, order[:size]) * (1 - 1e-9)


def test_slopes_are_the_gains_of_a_small_step():
    """The sum of sqrt(v + t e) has the slope sum(e / sqrt(v)) / 2 in t; a floor keeps it finite."""
    factors, references = problem(n_candidates=30)
    few, _ = Sweep.empty(factors, references, DELTA).moved(torch.arange(8))
    before = variances(factors, references, range(8))
    added = np.stack([variances(factors, references, [*range(8), j]) for j in range(8, 30)])
    expected = ((added - before) / np.sqrt(before)).sum(1)
    assert_allclose(few.slopes()[8:], expected, rtol=1e-9)
    assert (few.slopes()[:8] == -1).all()
    assert torch.isfinite(Sweep.empty(factors, references, DELTA).slopes()).all()


def test_growth_by_slopes_loses_little_to_one_by_gains():
    factors, references = problem(n=60, m=40, n_candidates=900)
    fast = choose(factors, references, DELTA, 200)
    assert len(set(fast.indices.tolist())) == 200
    assert_allclose(fast.shares, variances(factors, references, fast.indices), rtol=1e-9)
    assert_allclose(fast.curve[-1], fast.shares.mean(), rtol=1e-9)
    exact = Sweep.empty(factors, references, DELTA)
    for _ in range(200):
        exact, _ = exact.moved(exact.gains().argmax()[None])
    assert fast.objective() > 0.97 * exact.objective()


@pytest.mark.parametrize("n_parts", [8, 32])
def test_block_sizes(n_parts, monkeypatch):
    monkeypatch.setattr(greedy, "ENTERING", n_parts)
    stops = greedy._stops(1000)
    sizes = np.diff([0, *stops])
    assert (sizes[:n_parts] == 1).all()
    assert stops[-1] == 1000
    inside = np.array([0, *stops])[:-1]
    assert (sizes[:-1] == 1 + inside[:-1] // n_parts).all()
    assert len(sizes) < 5 * n_parts + 10


@pytest.mark.parametrize("sizes", [[1, 7, 40, 41, 90], [90, 7, 7, 41]], ids=["up", "down"])
def test_a_growth_goes_on_as_if_it_had_never_stopped(sizes):
    factors, references = problem(n=20, m=10, n_candidates=120)
    growth = greedy.Growth.of(factors, references, DELTA)
    for size in sizes:
        grown, order, curve = growth.to(size)
        alone = greedy.Growth.of(factors, references, DELTA).to(size)
        assert order.tolist() == alone[1].tolist()
        assert sorted(order.tolist()) == grown.members().tolist()
        assert_allclose(curve, alone[2], rtol=1e-12)
        assert_allclose(grown.variances, variances(factors, references, order), rtol=1e-9)


def test_several_sizes_take_as_many_steps_as_one(monkeypatch):
    factors, references = problem(n=20, m=10, n_candidates=120)
    entering, leaving = [], []
    slopes, losses = Sweep.slopes, Sweep.losses
    monkeypatch.setattr(Sweep, "slopes", lambda now: entering.append(1) or slopes(now))
    monkeypatch.setattr(Sweep, "losses", lambda now: leaving.append(1) or losses(now))
    monkeypatch.setattr(greedy, "FEW", 0)
    growth = greedy.Growth.of(factors, references, DELTA)
    for size in (5, 22, 80):  # ends of blocks
        _, order, curve = growth.to(size)
    assert len(entering) == len(greedy._stops(80))
    for sizes in ([5], [5, 20, 50]):
        leaving.clear()
        pool = greedy.Pool(growth.start, order, curve)
        for size in sizes:
            pool.choose(size)
        n_left, n_steps = 80, 0
        while n_left > 5:
            n_left, n_steps = max(5, n_left - 1 - n_left // greedy.LEAVING), n_steps + 1
        assert len(leaving) == n_steps


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
