"""What the experiments beyond the paper compute by themselves, against numbers made by hand."""

from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.metrics import log_loss

from sksubnet import SubnetLaplaceRegressor, TabularNet
from sksubnet.predictive import Categorical, Predictive

PAPER = Path(__file__).parent.parent / "examples" / "paper"


pytestmark = pytest.mark.usefixtures("paper_scripts")


# ---- active learning ----------------------------------------------------------------------------


def curve(*losses):
    from active_learning import Curve

    return Curve(np.array([20, 30, 40, 50])[: len(losses)], np.array(losses, dtype=float))


def test_labels_saved_are_read_off_between_the_rounds():
    from active_learning import saved

    random = curve(1.0, 0.8, 0.7, 0.6)
    # is at 0.6 half way between 30 and 40 labels
    assert saved(curve(1.0, 0.7, 0.5, 0.4), random) == pytest.approx(50 - 35)
    # ends at 0.75, where random choice is after 35 labels
    assert saved(curve(1.0, 0.95, 0.9, 0.75), random) == pytest.approx(35 - 50)
    assert saved(random, random) == 0
    # as good from the start as random choice at the end
    assert saved(curve(0.6, 0.6, 0.6, 0.6), random) == 50 - 20


def test_a_rise_is_no_saving():
    from active_learning import saved

    # luck at 30 labels: the nearest curve that does not rise is 0.65 from there on
    lucky = curve(1.0, 0.4, 0.9, 0.65)
    np.testing.assert_allclose(lucky.monotone().losses, [1, 0.65, 0.65, 0.65])
    assert saved(lucky, curve(1.0, 0.9, 0.8, 0.5)) == pytest.approx(45 - 30)


def test_area_is_the_mean_loss_over_the_labels():
    assert curve(1.0, 0.5, 0.5, 0.5).area() == pytest.approx((0.75 + 0.5 + 0.5) / 3)


def test_each_strategy_wants_its_own_row():
    from active_learning import scores

    # certain; torn between two of three; torn between all; unknown because the weights are
    logits = torch.tensor([[9.0, 0, 0], [4.0, 4, -9], [0.3, 0, 0], [3.0, 0, 0]]).double()
    covariance = torch.zeros(4, 3, 3, dtype=torch.float64)
    covariance[3] = 9 * torch.eye(3)
    predictive = Predictive(logits, covariance, Categorical())
    wanted = {
        name: int(scores(name, predictive, 0).argmax())
        for name in ("epistemic", "entropy", "margin")
    }
    assert wanted == {"epistemic": 3, "entropy": 2, "margin": 1}
    drawn = [tuple(scores("random", predictive, seed)) for seed in range(3)]
    assert len(set(drawn)) == 3


def test_rows_to_begin_with_have_three_of_each_class():
    from active_learning import first_rows

    y = np.repeat([0, 1, 2], [80, 15, 5])
    rows = first_rows(y, seed=0)
    assert len(rows) == len(set(rows)) == 20
    assert (np.bincount(y[rows]) >= 3).all()
    assert not np.array_equal(rows, first_rows(y, seed=1))
    assert len(first_rows(np.repeat(np.arange(10), 9), seed=0)) == 30


def test_a_curve_counts_only_the_labels_that_were_asked_for(monkeypatch):
    import active_learning
    from active_learning import BATCH, Job, measure, split_of

    seen = []

    class Counting:
        def fit(self, X, y):
            seen.append(X)
            self.classes_ = np.unique(y)
            return self

        def predictive(self, X):
            return Predictive(
                torch.tensor(X[:, :2]).double(),
                torch.zeros(len(X), 2, 2, dtype=torch.float64),
                Categorical(),
            )

        def predict_proba(self, X):
            return np.full((len(X), 2), 0.5)

    monkeypatch.setattr(active_learning, "model_of", lambda seed: Counting())
    active_learning.first_fit.cache_clear()
    found = measure(Job("cancer", 0, "entropy", 2), None)
    active_learning.first_fit.cache_clear()
    assert found["labels"] == [20, 20 + BATCH, 20 + 2 * BATCH] == [len(X) for X in seen]
    pool = {row.tobytes() for row in split_of("cancer", 0, None).X}
    for X in seen:
        assert len({row.tobytes() for row in X}) == len(X)
        assert {row.tobytes() for row in X} <= pool
    # of two classes the entropy is the higher the nearer the logits are
    for before, after in pairwise(seen):
        added, known = after[len(before) :], {row.tobytes() for row in before}
        left = [row for row in split_of("cancer", 0, None).X if row.tobytes() not in known]
        nearest = np.sort([abs(row[0] - row[1]) for row in left])[:BATCH]
        np.testing.assert_allclose(np.sort(np.abs(added[:, 0] - added[:, 1])), nearest)
    test_y = split_of("cancer", 0, None).test_y
    expected = log_loss(test_y, np.full((len(test_y), 2), 0.5))
    np.testing.assert_allclose(found["losses"], expected)


# ---- the wheel bandit ---------------------------------------------------------------------------


def test_rewards_of_the_wheel_by_hand():
    from bandit import expected_rewards

    contexts = np.array([[0.1, 0.1], [0.6, 0.6], [0.6, -0.6], [-0.6, 0.6], [-0.6, -0.6]])
    expected = expected_rewards(contexts, 0.5)
    np.testing.assert_array_equal(
        expected,
        [
            [1.2, 1, 1, 1, 1],
            [1.2, 50, 1, 1, 1],
            [1.2, 1, 50, 1, 1],
            [1.2, 1, 1, 50, 1],
            [1.2, 1, 1, 1, 50],
        ],
    )
    # the same contexts are all inside a larger circle
    assert (expected_rewards(contexts, 0.9) == expected[0]).all()


def test_regrets_by_hand():
    from bandit import expected_rewards, regrets, uniform_regrets

    expected = expected_rewards(np.array([[0.1, 0.1], [0.1, 0.1], [0.6, 0.6], [0.6, 0.6]]), 0.5)
    found = regrets(expected, np.array([0, 3, 1, 0]))
    np.testing.assert_allclose(found, [0, 0.2, 0, 48.8])
    uniform = uniform_regrets(expected)
    np.testing.assert_allclose(uniform, [1.2 - 5.2 / 5] * 2 + [50 - 54.2 / 5] * 2)


def test_contexts_are_uniform_in_the_disc_and_rewards_near_their_means():
    from bandit import game_of

    game = game_of(0.7, 0, 20_000)
    radius = np.hypot(*game.contexts.T)
    assert radius.max() <= 1
    for share in (0.25, 0.5, 0.75):
        assert np.mean(radius**2 < share) == pytest.approx(share, abs=0.012)
    np.testing.assert_allclose(game.contexts.mean(axis=0), 0, atol=0.012)
    assert np.mean(game.expected.max(axis=1) == 50) == pytest.approx(1 - 0.49, abs=0.012)
    assert np.std(game.rewards - game.expected) == pytest.approx(0.01, rel=0.02)


def test_inputs_of_all_arms_are_told_apart_again():
    from bandit import all_arms, best_mean

    contexts = np.array([[0.1, 0.2], [-0.3, 0.4], [0.5, -0.6]])
    X = all_arms(contexts)
    model = SimpleNamespace(predict=lambda X: 10 * X[:, 0] + X[:, 2:] @ np.arange(5))
    values = best_mean(model, contexts, None)
    np.testing.assert_allclose(values, 10 * contexts[:, :1] + np.arange(5))
    assert X.shape == (15, 7)
    assert (X[:, 2:].sum(axis=1) == 1).all()


def test_draws_have_the_moments_of_the_function():
    from bandit import all_arms, drawn

    rng = np.random.default_rng(0)
    X = np.hstack([rng.uniform(-1, 1, (60, 2)), np.eye(5)[rng.integers(5, size=60)]])
    net = TabularNet(hidden=(8,), max_epochs=5)
    model = SubnetLaplaceRegressor(net, cv=None, prior_precision=2.0, noise=0.5, random_state=0)
    model.fit(X, X[:, 0] + rng.normal(size=60))
    context = np.array([[0.9, -0.2]])
    draws = np.concatenate([drawn(model, np.repeat(context, 40, axis=0), rng) for _ in range(100)])
    mean, covariance = model.predict(all_arms(context), return_cov=True)
    covariance = covariance - 0.25 * np.eye(5)
    error = np.sqrt(np.outer(covariance.diagonal(), covariance.diagonal()))
    np.testing.assert_allclose(draws.mean(axis=0), mean, atol=0.1 * np.sqrt(error.max()))
    np.testing.assert_allclose(np.cov(draws.T) / error, covariance / error, atol=0.1)


def test_a_strategy_sees_only_the_rewards_of_its_pulls(monkeypatch):
    import bandit
    from bandit import BATCH, Job, game_of, play

    game, seen = game_of(0.5, 0, 200), []

    class Oracle:
        def fit(self, X, y):
            seen.append(("fit", X, y))
            return self

        def update(self, X, y):
            seen.append(("update", X, y))

        def predict(self, X):
            return bandit.expected_rewards(X[:, :2], 0.5)[np.arange(len(X)), X[:, 2:].argmax(1)]

    monkeypatch.setattr(bandit, "model_of", lambda strategy, seed: Oracle())
    arms = play(Job(0.5, 0, "mean", 200), game)
    assert bandit.regrets(game.expected, arms)[BATCH:].sum() == 0
    assert [len(y) for kind, _, y in seen if kind == "fit"] == [25, 50, 100]
    assert [len(y) for kind, _, y in seen if kind == "update"] == [25] * 4
    known = 0
    for kind, X, y in seen:
        rows = slice(0, len(y)) if kind == "fit" else slice(known, known + len(y))
        known = rows.stop
        np.testing.assert_array_equal(X, bandit.rows_of(game.contexts[rows], arms[rows]))
        np.testing.assert_array_equal(y, game.rewards[rows][np.arange(len(y)), arms[rows]])


# ---- the later part of a table ------------------------------------------------------------------


def test_blocks_are_in_the_order_of_time_and_share_no_row():
    from time_shift import N_IN_TIME, N_LATER, split_rows

    is_late = np.arange(1000) >= 400
    train, blocks = split_rows(is_late, seed=0, n_train=200, most=30)
    in_time, later = blocks[:N_IN_TIME], blocks[N_IN_TIME:]
    assert len(train) == 200
    assert len(later) == N_LATER
    every = np.concatenate([train, *blocks])
    assert len(set(every)) == len(every)
    assert max(train.max(), np.concatenate(in_time).max()) < 400
    assert later[0].min() >= 400
    for before, after in pairwise(later):
        assert before.max() < after.min()
    # each has its rows from all of its own twelfth
    for n, block in enumerate(later):
        assert len(block) == 30
        assert set((block - 400) // 50) == {n}
    other, _ = split_rows(is_late, seed=1, n_train=200, most=30)
    assert set(other) != set(train)


def line(losses, doubts, in_time=(0.5, 0.5, 0.5, 0.5), sure=(1.0, 1.0, 1.0, 1.0)):
    pairs = zip((*in_time, *losses), (*sure, *doubts), strict=True)
    return {"blocks": [{"loss": loss, "epistemic": doubt} for loss, doubt in pairs]}


def test_drift_is_scored_by_hand():
    from time_shift import area, is_worse, rank_correlation, signal

    seen = line([0.5, 0.59, 0.7, 0.9], [1.0, 2.0, 3.0, 4.0])
    assert is_worse(seen).tolist() == [False] * 6 + [True] * 2
    assert rank_correlation(seen, "epistemic") == pytest.approx(1)
    assert area([seen], "epistemic") == 1
    # the sixth block is not worse but less certain than the worst: 11 of 12 pairs are in order
    half = line([0.5, 0.59, 0.7, 0.9], [1.0, 3.5, 3.0, 4.0])
    assert area([half], "epistemic") == pytest.approx(11 / 12)
    # what counts is the uncertainty beside that in time
    larger = line([0.5, 0.59, 0.7, 0.9], [5.0, 10.0, 15.0, 20.0], sure=[5.0] * 4)
    np.testing.assert_allclose(signal(larger, "epistemic"), signal(seen, "epistemic"))
    assert area([seen, larger], "epistemic") == 1
    unseen = line([0.5, 0.59, 0.7, 0.9], [1.0, 1.0, 1.0, 1.0])
    assert area([unseen], "epistemic") == 0.5
    assert np.isnan(rank_correlation(unseen, "epistemic"))
    assert np.isnan(area([line([0.5] * 4, [1.0, 2.0, 3.0, 4.0])], "epistemic"))
