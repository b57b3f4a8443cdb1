"""Neural network pruning in PyTorch: the package behind The Pruning Book."""

from prunebook.cover import coverage, sparsity
from prunebook.layers import dense_weight, maskable
from prunebook.masking import attach, bake, harden, masks, plain_state, set_masks
from prunebook.methods.adaptive import AdaptivePruning
from prunebook.methods.exchange import exchange
from prunebook.methods.gates import gumbel_gate
from prunebook.methods.gumbel import GumbelPruning
from prunebook.methods.quantile import fft_kde, quantile
from prunebook.methods.schedules import prune_gradually
from prunebook.methods.soft import SoftPruning, soft_mask
from prunebook.methods.units import prune_units
from prunebook.methods.weights import prune_weights, rewind, sensitivity
from prunebook.read.order import order_units
from prunebook.read.paths import count_paths, importance, paths, surviving_weights, symmetry
from prunebook.shrinking.slicing import recalibrate, shrink
from prunebook.step_state import renew
from prunebook.tools.costs import costs, latencies, latency, macs, stored_bytes
from prunebook.tools.csr import CSRLinear, to_csr
from prunebook.tools.files import load_model, save_model
from prunebook.training.data import Data, Split, load_data
from prunebook.training.device import device
from prunebook.training.fit import evaluate, fit, linear_decay
from prunebook.training.models import RandomShift, lenet5, lenet_300_100, mlp

__version__ = "0.1.0"

__all__ = [
    "AdaptivePruning",
    "CSRLinear",
    "Data",
    "GumbelPruning",
    "RandomShift",
    "SoftPruning",
    "Split",
    "attach",
    "bake",
    "costs",
    "count_paths",
    "coverage",
    "dense_weight",
    "device",
    "evaluate",
    "exchange",
    "fft_kde",
    "fit",
    "gumbel_gate",
    "harden",
    "importance",
    "latencies",
    "latency",
    "lenet5",
    "lenet_300_100",
    "linear_decay",
    "load_data",
    "load_model",
    "macs",
    "maskable",
    "masks",
    "mlp",
    "order_units",
    "paths",
    "plain_state",
    "prune_gradually",
    "prune_units",
    "prune_weights",
    "quantile",
    "recalibrate",
    "renew",
    "rewind",
    "save_model",
    "sensitivity",
    "set_masks",
    "shrink",
    "soft_mask",
    "sparsity",
    "stored_bytes",
    "surviving_weights",
    "symmetry",
    "to_csr",
]
