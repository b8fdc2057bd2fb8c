"""Pictures of predictions and of what they are worth, in the manner of scikit-learn's displays.

``from_estimator`` and ``from_predictions`` compute and, other than scikit-learn's, do not draw, for
any estimator with ``predict_proba`` or ``predict(X, return_std=True)`` and for those of this
package; ``plot(ax=...)`` draws and returns the display, ``frame()`` gives the numbers of the
picture. Those that compare take one model or a mapping from names to models. matplotlib is imported
by ``plot`` only, pandas by ``frame`` only.

Read first: `ReliabilityDisplay` in `reliability.py`; `drawing.py` for the style, `arguments.py` for
what is allowed.
"""

from sksubnet.displays.bands import PredictiveBandDisplay
from sksubnet.displays.decision import DecisionUncertaintyDisplay
from sksubnet.displays.intervals import IntervalCoverageDisplay
from sksubnet.displays.quantiles import QuantileCalibrationDisplay
from sksubnet.displays.rejection import RejectionDisplay
from sksubnet.displays.reliability import ReliabilityDisplay
from sksubnet.displays.shift import UncertaintyShiftDisplay
from sksubnet.displays.size_path import SizePathDisplay
from sksubnet.displays.subnetwork import SubnetworkDisplay

__all__ = [
    "DecisionUncertaintyDisplay",
    "IntervalCoverageDisplay",
    "PredictiveBandDisplay",
    "QuantileCalibrationDisplay",
    "RejectionDisplay",
    "ReliabilityDisplay",
    "SizePathDisplay",
    "SubnetworkDisplay",
    "UncertaintyShiftDisplay",
]
