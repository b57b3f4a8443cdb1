"""Neural network pruning in PyTorch: the package behind The Pruning Book."""

from prunebook.costs import Costs, costs
from prunebook.shrinking import Report, recalibrate, shrink

__all__ = ["Costs", "Report", "costs", "recalibrate", "shrink"]
__version__ = "0.1.0"
