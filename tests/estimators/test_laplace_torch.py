"""Agreement with numbers that an independent implementation, laplace-torch 0.3, gave.

They come from its default backend, in float64, for the net and the rows of this file:

    la = Laplace(net, likelihood, subset_of_weights="subnetwork", hessian_structure="full",
                 subnetwork_indices=torch.tensor(INDICES), prior_precision=PRIOR_PRECISION,
                 sigma_noise=NOISE)                    # only for the regression
    la.fit(DataLoader(TensorDataset(X, y), batch_size=2))
    mean, covariance = la._glm_predictive_distribution(X)
    la(X, pred_type="glm", link_approx="probit")       # only for the classification
    la.log_marginal_likelihood()
"""

import numpy as np
import pytest
import torch
from sklearn.frozen import FrozenEstimator
from skorch import NeuralNet, NeuralNetClassifier, NeuralNetRegressor
from torch import nn

from sksubnet import SubnetLaplaceClassifier, SubnetLaplaceRegressor

PRIOR_PRECISION = 0.7
NOISE = 0.3
INDICES = [0, 9, 27, 41, 50, 66, 73]
X = torch.cos(torch.arange(30, dtype=torch.float64)).reshape(6, 5).numpy()
LABELS = np.arange(6) % 3
TARGETS = np.linspace(-1, 1, 18).reshape(6, 3)

PROBABILITIES = [
    [0.40768512678573693, 0.48525378639935807, 0.10706108681490514],
    [0.49975895532604286, 0.4779185539743331, 0.02232249069962415],
    [0.5114231825151349, 0.40013623598205955, 0.08844058150280568],
    [0.40220246480207283, 0.4633641358179787, 0.13443339937994844],
    [0.254305471526418, 0.5661157561915281, 0.17957877228205388],
    [0.4591566325370354, 0.4537518630645834, 0.08709150439838102],
]
CLASSIFICATION_EVIDENCE = -10.914673524464119
REGRESSION_EVIDENCE = -179.50027339345542
# of each row: the entries 00, 01, 02, 11, 12, 22 of the covariance of the three latents
CLASSIFICATION_COVARIANCE = [
    [0.9531228354, 0.2374234332, 0.4499328261, 0.8192025424, 0.0870011310, 0.7529628708],
    [0.7525195621, 0.3969640950, 0.1478808730, 0.6944373492, 0.1525748949, 0.9236321489],
    [1.6191267160, 1.1303387057, 0.2239035383, 1.9432619403, -0.2918249245, 1.9505169841],
    [0.7093961823, 0.4177033906, 0.2110655611, 0.9595625228, 0.1160371557, 0.7821468577],
    [0.8190436820, 0.6960081922, 0.3946814551, 1.0885129012, 0.3263837214, 0.5818628456],
    [0.9447923939, 0.2057388599, 0.4278451519, 0.7869613628, 0.0634170208, 0.7826139760],
]
REGRESSION_COVARIANCE = [
    [0.0321470221, -0.0028531434, 0.0112355109, 0.0302918522, -0.0027617472, 0.0192193756],
    [0.0338446642, 0.0081139468, 0.0076674370, 0.0202938317, 0.0047900836, 0.0253160260],
    [0.0495666445, 0.0112006600, 0.0036997629, 0.0521418848, -0.0236871318, 0.0566636252],
    [0.0367730671, 0.0135354750, 0.0122342825, 0.0409492674, -0.0007823204, 0.0335935177],
    [0.0297921484, 0.0154386496, 0.0092157092, 0.0284572103, 0.0020535528, 0.0178596764],
    [0.0310364982, -0.0047574425, 0.0101707939, 0.0287701712, -0.0036728464, 0.0198635055],
]


class Net(nn.Sequential):
    """Two layers, 5-8-3, whose weights are a formula."""

    def __init__(self) -> None:
        super().__init__(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3))
        weights = torch.sin(torch.arange(75, dtype=torch.float64) ** 2)
        nn.utils.vector_to_parameters(weights, self.double().parameters())


def frozen(kind: type[NeuralNet], **options) -> FrozenEstimator:
    return FrozenEstimator(kind(Net, **options).initialize())


@pytest.fixture(scope="module")
def classifier() -> SubnetLaplaceClassifier:
    net = frozen(NeuralNetClassifier, criterion=nn.CrossEntropyLoss, classes=[0, 1, 2])
    model = SubnetLaplaceClassifier(
        net, selection=INDICES, prior_precision=PRIOR_PRECISION, link="probit"
    )
    return model.fit(X, LABELS)


@pytest.fixture(scope="module")
def regressor() -> SubnetLaplaceRegressor:
    net = frozen(NeuralNetRegressor)
    model = SubnetLaplaceRegressor(
        net, selection=INDICES, prior_precision=PRIOR_PRECISION, noise=NOISE
    )
    return model.fit(X, TARGETS)


def covariances(upper_triangles) -> torch.Tensor:
    """Symmetric matrices (B, 3, 3) from their upper triangles (B, 6)."""
    matrices = torch.zeros(len(upper_triangles), 3, 3, dtype=torch.float64)
    rows, columns = torch.triu_indices(3, 3)
    matrices[:, rows, columns] = torch.tensor(upper_triangles, dtype=torch.float64)
    return matrices + matrices.triu(1).mT


def test_probit_probabilities(classifier):
    np.testing.assert_allclose(classifier.predict_proba(X), PROBABILITIES, atol=1e-12)


def test_latent_covariance_of_classification(classifier):
    expected = covariances(CLASSIFICATION_COVARIANCE)
    torch.testing.assert_close(classifier.predictive(X).covariance, expected, atol=1e-9, rtol=0)


def test_latent_covariance_of_regression(regressor):
    expected = covariances(REGRESSION_COVARIANCE)
    torch.testing.assert_close(regressor.predictive(X).covariance, expected, atol=1e-9, rtol=0)


def test_predicted_standard_deviation(regressor):
    _, std = regressor.predict(X, return_std=True)
    variance = covariances(REGRESSION_COVARIANCE).diagonal(dim1=1, dim2=2).numpy()
    np.testing.assert_allclose(std, np.sqrt(variance + NOISE**2), atol=1e-9)


def test_evidence(classifier, regressor):
    assert classifier.log_marginal_likelihood() == pytest.approx(CLASSIFICATION_EVIDENCE, rel=1e-10)
    assert regressor.log_marginal_likelihood() == pytest.approx(REGRESSION_EVIDENCE, rel=1e-10)
