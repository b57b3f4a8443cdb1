"""Neural network pruning in PyTorch: the package behind The Pruning Book."""

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
from prunebook.methods.adaptive import AdaptivePruning, settled
from prunebook.methods.exchange import exchange
from prunebook.methods.gumbel import GumbelPruning, gumbel_gate, logistic_noise, two_logit_gate
from prunebook.methods.quantile import fft_kde, quantile
from prunebook.methods.soft import SoftPruning, soft_mask
from prunebook.methods.units import prune_units
from prunebook.methods.weights import (
    cubic,
    exponential,
    linear,
    one_shot,
    prune_gradually,
    prune_weights,
    rewind,
    sensitivity,
)
from prunebook.read.faithful import agreement, removal
from prunebook.read.paths import (
    components,
    count_paths,
    crossings,
    importance,
    order_units,
    paths,
    reached,
    surviving,
    symmetry,
    twins,
)
from prunebook.shrinking.slicing import Report, recalibrate, shrink
from prunebook.tools.costs import Costs, costs, latency, macs, race, stored
from prunebook.tools.csr import CSRLinear, to_csr
from prunebook.tools.files import load_model, save_model
from prunebook.training.data import Data, Split, load_data
from prunebook.training.device import device
from prunebook.training.fit import History, Score, evaluate, fit, linear_decay
from prunebook.training.models import RandomShift, lenet5, lenet_300_100, mlp

__version__ = "0.1.0"

__all__ = [
    "AdaptivePruning",
    "CSRLinear",
    "Costs",
    "Data",
    "GumbelPruning",
    "History",
    "RandomShift",
    "Report",
    "Score",
    "SoftPruning",
    "Split",
    "agreement",
    "attach",
    "attach_all",
    "bake",
    "components",
    "costs",
    "count_paths",
    "crossings",
    "cubic",
    "dense_weight",
    "device",
    "evaluate",
    "exchange",
    "exponential",
    "fft_kde",
    "fit",
    "gumbel_gate",
    "harden",
    "importance",
    "latency",
    "lenet5",
    "lenet_300_100",
    "linear",
    "linear_decay",
    "load_data",
    "load_model",
    "logistic_noise",
    "macs",
    "maskable",
    "masks",
    "mlp",
    "one_shot",
    "order_units",
    "paths",
    "prune_gradually",
    "prune_units",
    "prune_weights",
    "quantile",
    "race",
    "reached",
    "recalibrate",
    "removal",
    "rewind",
    "save_model",
    "sensitivity",
    "set_masks",
    "settled",
    "shrink",
    "soft_mask",
    "sparsity",
    "stored",
    "surviving",
    "symmetry",
    "to_csr",
    "twins",
    "two_logit_gate",
]
