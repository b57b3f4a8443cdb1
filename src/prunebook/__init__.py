"""Neural network pruning in PyTorch: the package behind The Pruning Book."""

__version__ = "0.1.0"
