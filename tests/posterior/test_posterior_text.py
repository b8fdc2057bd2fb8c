"""How a posterior shows itself."""

import torch

from sksubnet.posterior import (
    CholeskyPosterior,
    DiagonalPosterior,
    GaussianPosterior,
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
