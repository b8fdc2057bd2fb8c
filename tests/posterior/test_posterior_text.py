"""How a posterior shows itself."""

import torch

from sksubnet.jacobian import FactoredRows, LayerRows
from sksubnet.posterior import (
    CholeskyPosterior,
    DiagonalPosterior,
    GaussianPosterior,
    KernelPosterior,
    ShiftedCholesky,
)


def test_gaussian_says_its_size_prior_and_what_the_data_determine():
    # of two directions one is half determined: 1 / (1 + 1) + 3 / (3 + 1)
    posterior = GaussianPosterior(
        torch.zeros(3).double(), torch.tensor([1.0, 3.0]).double(), torch.eye(3, 2).double(), 1.0
    )
    assert repr(posterior) == (
        "GaussianPosterior: weights 3, covariance full, prior precision 1, effective parameters 1.2"
    )
    assert "<th>effective parameters</th><td>1.2</td>" in posterior._repr_html_()


def test_effective_parameters_fall_with_the_prior_precision():
    values = torch.tensor([1.0, 3.0]).double()
    posterior = GaussianPosterior(torch.zeros(2).double(), values, torch.eye(2).double(), 1.0)
    assert "effective parameters 0.5" in repr(posterior.tuned(6.2))


def test_diagonal_and_cholesky_say_what_they_are():
    ones = torch.ones(4).double()
    assert "covariance diagonal" in repr(DiagonalPosterior(ones, ones, None, 1.0))
    large = CholeskyPosterior(ones, ShiftedCholesky(torch.eye(4).double())).tuned(2.5)
    assert repr(large) == "CholeskyPosterior: weights 4, covariance full, prior precision 2.5"
    assert "<td>2.5</td>" in large._repr_html_()


def test_of_a_dual_posterior_the_training_rows_are_told():
    rows = FactoredRows((LayerRows(torch.ones(2, 1, 3), None),))
    values, basis = torch.ones(2).double(), torch.eye(2).double()
    kept = KernelPosterior(torch.zeros(3).double(), values, basis, 1.0, training_rows=rows)
    assert repr(kept).endswith("effective parameters 1.0, training rows held 2")
    assert "<th>training rows held</th><td>2</td>" in kept._repr_html_()
