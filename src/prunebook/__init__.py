"""Neural network pruning in PyTorch: the package behind The Pruning Book."""

from prunebook.data import Data, Split, load_data
from prunebook.devices import device
from prunebook.models import lenet5, lenet_300_100, mlp
from prunebook.training import History, Score, evaluate, fit

__version__ = "0.1.0"

__all__ = [
    "Data",
    "History",
    "Score",
    "Split",
    "device",
    "evaluate",
    "fit",
    "lenet5",
    "lenet_300_100",
    "load_data",
    "mlp",
]
