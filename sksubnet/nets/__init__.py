"""The only wing that knows skorch: default net, training, and the trained net as tensors.

A user's net goes in and a `TrainedNet` comes out: the module in evaluation mode, its latents, its
likelihood, and the `Rows` that it was trained and is tuned on. Everything after the training works
on that value.

Read first: `fit_net` in `training.py`, then `TrainedNet` in `trained.py`.
"""

from sksubnet.nets.bins import Bins, Tails
from sksubnet.nets.caching import TrainingMemory
from sksubnet.nets.convergence import check_convergence, check_frozen
from sksubnet.nets.criteria import LOG_VARIANCE_LIMIT
from sksubnet.nets.default import Schedule, TabularNet, draws_nothing, n_epochs_kept
from sksubnet.nets.dependencies import fingerprint
from sksubnet.nets.encoding import UNSEEN, Encoding
from sksubnet.nets.files import check_writable, write_whole
from sksubnet.nets.first_pass import n_outputs_of
from sksubnet.nets.guard import check_class_weights, check_classes, check_labels, check_reading
from sksubnet.nets.inputs import Inputs, gives_probabilities, inputs_of, latent_of
from sksubnet.nets.keeping import Packed, keepable_copy, make_keepable
from sksubnet.nets.loading import BlockedRows
from sksubnet.nets.modules import Training, load
from sksubnet.nets.named_inputs import NamedInputs
from sksubnet.nets.noise import NoiseNet, fit_noise, noise_training
from sksubnet.nets.randomness import RandomStream
from sksubnet.nets.stored import (
    PLAIN,
    KeptNet,
    NamedNet,
    StoredTabular,
    frozen_like,
    kept,
    library_versions,
    resolved,
)
from sksubnet.nets.trained import Latent, Rows, TrainedNet, count_rows, flat_weights, take_rows
from sksubnet.nets.training import (
    check_net,
    criterion_of,
    fit_net,
    has_logits,
    has_module_instance,
    held_out_share,
    hold_out,
    is_frozen,
    learning_rates,
    prepare,
    trains_in_blocks,
)

__all__ = [
    "LOG_VARIANCE_LIMIT",
    "PLAIN",
    "UNSEEN",
    "Bins",
    "BlockedRows",
    "Encoding",
    "Inputs",
    "KeptNet",
    "Latent",
    "NamedInputs",
    "NamedNet",
    "NoiseNet",
    "Packed",
    "RandomStream",
    "Rows",
    "Schedule",
    "StoredTabular",
    "TabularNet",
    "Tails",
    "TrainedNet",
    "Training",
    "TrainingMemory",
    "check_class_weights",
    "check_classes",
    "check_convergence",
    "check_frozen",
    "check_labels",
    "check_net",
    "check_reading",
    "check_writable",
    "count_rows",
    "criterion_of",
    "draws_nothing",
    "fingerprint",
    "fit_net",
    "fit_noise",
    "flat_weights",
    "frozen_like",
    "gives_probabilities",
    "has_logits",
    "has_module_instance",
    "held_out_share",
    "hold_out",
    "inputs_of",
    "is_frozen",
    "keepable_copy",
    "kept",
    "latent_of",
    "learning_rates",
    "library_versions",
    "load",
    "make_keepable",
    "n_epochs_kept",
    "n_outputs_of",
    "noise_training",
    "prepare",
    "resolved",
    "take_rows",
    "trains_in_blocks",
    "write_whole",
]
