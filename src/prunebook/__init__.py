"""Neural network pruning in PyTorch: the package behind The Pruning Book."""

from prunebook.adaptive import AdaptivePruning, settled
from prunebook.chapters import expect, is_quick, quick, setup, table
from prunebook.costs import Costs, costs
from prunebook.data import Data, Split, load_data
from prunebook.density import fft_kde, quantile
from prunebook.devices import device
from prunebook.explore import explore_k, explore_ratio, explore_run, explore_tau, moment
from prunebook.masking import (
    attach,
    attach_all,
    bake,
    dense_weight,
    harden,
    maskable,
    masks,
    set_masks,
    sparsity,
)
from prunebook.models import lenet5, lenet_300_100, mlp
from prunebook.shrinking import Report, recalibrate, shrink
from prunebook.soft import SoftPruning, soft_mask
from prunebook.training import History, Score, evaluate, fit, linear_decay
from prunebook.units import prune_units
from prunebook.weights import (
    cubic,
    exponential,
    linear,
    one_shot,
    prune_gradually,
    prune_weights,
    rewind,
    sensitivity,
)
from prunebook.widgets import FrameSlider

__version__ = "0.1.0"

__all__ = [
    "AdaptivePruning",
    "Costs",
    "Data",
    "FrameSlider",
    "History",
    "Report",
    "Score",
    "SoftPruning",
    "Split",
    "attach",
    "attach_all",
    "bake",
    "costs",
    "cubic",
    "dense_weight",
    "device",
    "evaluate",
    "expect",
    "explore_k",
    "explore_ratio",
    "explore_run",
    "explore_tau",
    "exponential",
    "fft_kde",
    "fit",
    "harden",
    "is_quick",
    "lenet5",
    "lenet_300_100",
    "linear",
    "linear_decay",
    "load_data",
    "maskable",
    "masks",
    "mlp",
    "moment",
    "one_shot",
    "prune_gradually",
    "prune_units",
    "prune_weights",
    "quantile",
    "quick",
    "recalibrate",
    "rewind",
    "sensitivity",
    "set_masks",
    "settled",
    "setup",
    "shrink",
    "soft_mask",
    "sparsity",
    "table",
]
