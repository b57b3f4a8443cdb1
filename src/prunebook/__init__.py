"""Neural network pruning in PyTorch: the package behind The Pruning Book."""

from prunebook.adaptive import AdaptivePruning, settled
from prunebook.chapters import expect, is_quick, quick, setup, table
from prunebook.compare import compare
from prunebook.costs import Costs, costs, latency, macs, race, stored
from prunebook.data import Data, Split, load_data
from prunebook.density import fft_kde, quantile
from prunebook.devices import device
from prunebook.exchange import exchange
from prunebook.explore import (
    explore_class,
    explore_frontier,
    explore_gates,
    explore_k,
    explore_ratio,
    explore_run,
    explore_savings,
    explore_tau,
    explore_thinning,
    gate_moment,
    moment,
)
from prunebook.faithful import agreement, removal
from prunebook.files import load_model, save_model
from prunebook.gumbel import GumbelPruning, gumbel_gate, logistic_noise, two_logit_gate
from prunebook.latency_runs import break_even
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
from prunebook.models import RandomShift, lenet5, lenet_300_100, mlp
from prunebook.onepage import OnePage
from prunebook.pathways import (
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
from prunebook.shrinking import Report, recalibrate, shrink
from prunebook.soft import SoftPruning, soft_mask
from prunebook.sparse import CSRLinear, to_csr
from prunebook.toy import toy_data, toy_error, train_toy
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
    "CSRLinear",
    "Costs",
    "Data",
    "FrameSlider",
    "GumbelPruning",
    "History",
    "OnePage",
    "RandomShift",
    "Report",
    "Score",
    "SoftPruning",
    "Split",
    "agreement",
    "attach",
    "attach_all",
    "bake",
    "break_even",
    "compare",
    "components",
    "costs",
    "count_paths",
    "crossings",
    "cubic",
    "dense_weight",
    "device",
    "evaluate",
    "exchange",
    "expect",
    "explore_class",
    "explore_frontier",
    "explore_gates",
    "explore_k",
    "explore_ratio",
    "explore_run",
    "explore_savings",
    "explore_tau",
    "explore_thinning",
    "exponential",
    "fft_kde",
    "fit",
    "gate_moment",
    "gumbel_gate",
    "harden",
    "importance",
    "is_quick",
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
    "moment",
    "one_shot",
    "order_units",
    "paths",
    "prune_gradually",
    "prune_units",
    "prune_weights",
    "quantile",
    "quick",
    "race",
    "reached",
    "recalibrate",
    "removal",
    "rewind",
    "save_model",
    "sensitivity",
    "set_masks",
    "settled",
    "setup",
    "shrink",
    "soft_mask",
    "sparsity",
    "stored",
    "surviving",
    "symmetry",
    "table",
    "to_csr",
    "toy_data",
    "toy_error",
    "train_toy",
    "twins",
    "two_logit_gate",
]
