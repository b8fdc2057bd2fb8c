"""Moments and draws of all weights of a net: SWAG, dropout masks, variational inference.

These are what the baselines predict with, and SWAG's variances are a score for selection too. The
values handed on are `SWAGMoments` and `WeightDraws`, from which a net's outputs at every draw
follow.

Read first: `swag_moments` in `swag.py`.
"""

from sksubnet.sampling.dropout import DropoutDraws, check_dropout
from sksubnet.sampling.swag import SWAGMoments, swag_moments
from sksubnet.sampling.variational import draw_weights, vogn
from sksubnet.sampling.weight_draws import WeightDraws, set_weights, with_batch_statistics

__all__ = [
    "DropoutDraws",
    "SWAGMoments",
    "WeightDraws",
    "check_dropout",
    "draw_weights",
    "set_weights",
    "swag_moments",
    "vogn",
    "with_batch_statistics",
]
