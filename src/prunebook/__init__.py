"""Neural network pruning in PyTorch: the package behind The Pruning Book."""

from prunebook.costs import Costs, costs
from prunebook.data import Data, Split, load_data
from prunebook.devices import device
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
from prunebook.training import History, Score, evaluate, fit
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

__version__ = "0.1.0"

__all__ = [
    "Costs",
    "Data",
    "History",
    "Report",
    "Score",
    "Split",
    "attach",
    "attach_all",
    "bake",
    "costs",
    "cubic",
    "dense_weight",
    "device",
    "evaluate",
    "exponential",
    "fit",
    "harden",
    "lenet5",
    "lenet_300_100",
    "linear",
    "load_data",
    "maskable",
    "masks",
    "mlp",
    "one_shot",
    "prune_gradually",
    "prune_units",
    "prune_weights",
    "recalibrate",
    "rewind",
    "sensitivity",
    "set_masks",
    "shrink",
    "sparsity",
]
