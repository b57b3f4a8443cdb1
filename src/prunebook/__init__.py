"""Neural network pruning in PyTorch: the package behind The Pruning Book."""

from prunebook.masking import attach as attach
from prunebook.masking import attach_all as attach_all
from prunebook.masking import bake as bake
from prunebook.masking import dense_weight as dense_weight
from prunebook.masking import harden as harden
from prunebook.masking import maskable as maskable
from prunebook.masking import masks as masks
from prunebook.masking import set_masks as set_masks
from prunebook.masking import sparsity as sparsity
from prunebook.units import prune_units as prune_units
from prunebook.weights import cubic as cubic
from prunebook.weights import exponential as exponential
from prunebook.weights import linear as linear
from prunebook.weights import one_shot as one_shot
from prunebook.weights import prune_gradually as prune_gradually
from prunebook.weights import prune_weights as prune_weights
from prunebook.weights import rewind as rewind
from prunebook.weights import sensitivity as sensitivity

__version__ = "0.1.0"
