"""What subnetwork inference is compared with, behind the same interface.

All take a skorch net, ``None`` or a frozen net (ensembles and VOGN aside), and all give a
:class:`~sksubnet.Predictive`. Those that need no class of their own are settings of
:class:`~sksubnet.SubnetLaplaceClassifier` and :class:`~sksubnet.SubnetLaplaceRegressor`:

===================================  ===============================================================
method                               estimator
===================================  ===============================================================
MAP, the trained net alone           ``MAPClassifier()``
MC dropout                           ``MCDropoutClassifier()``
deep ensemble                        ``DeepEnsembleClassifier()``
SWAG                                 ``SWAGClassifier()``
VOGN                                 ``VOGNClassifier()``
subnetwork Laplace                   ``SubnetLaplaceClassifier()``
last-layer Laplace                   ``SubnetLaplaceClassifier(selection="last_layer")``
Laplace of a random subnetwork       ``SubnetLaplaceClassifier(selection="random")``
full Laplace                         ``SubnetLaplaceClassifier(subnetwork_size="all",
                                     candidates="all")``
diagonal Laplace                     ``SubnetLaplaceClassifier(subnetwork_size="all",
                                     candidates="all", covariance="diag")``
mixture of Laplace posteriors        ``DeepEnsembleClassifier(SubnetLaplaceClassifier())``
===================================  ===============================================================

Examples
--------
>>> from sklearn.datasets import load_iris
>>> from sksubnet import MAPClassifier, SubnetLaplaceClassifier
>>> X, y = load_iris(return_X_y=True)
>>> methods = {
...     "MAP": MAPClassifier(),
...     "last layer": SubnetLaplaceClassifier(selection="last_layer"),
...     "random": SubnetLaplaceClassifier(selection="random"),
...     "diagonal": SubnetLaplaceClassifier(
...         subnetwork_size="all", candidates="all", covariance="diag"
...     ),
... }
>>> for name, method in methods.items():
...     accuracy = method.set_params(random_state=0).fit(X[::2], y[::2]).score(X[1::2], y[1::2])
...     print(name, accuracy > 0.9)
MAP True
last layer True
random True
diagonal True
"""

from sksubnet.baselines.deep_ensemble import DeepEnsembleClassifier, DeepEnsembleRegressor
from sksubnet.baselines.map import MAPClassifier, MAPRegressor
from sksubnet.baselines.mc_dropout import MCDropoutClassifier, MCDropoutRegressor
from sksubnet.baselines.swag import SWAGClassifier, SWAGRegressor
from sksubnet.baselines.vogn import VOGNClassifier, VOGNRegressor

__all__ = [
    "DeepEnsembleClassifier",
    "DeepEnsembleRegressor",
    "MAPClassifier",
    "MAPRegressor",
    "MCDropoutClassifier",
    "MCDropoutRegressor",
    "SWAGClassifier",
    "SWAGRegressor",
    "VOGNClassifier",
    "VOGNRegressor",
]
