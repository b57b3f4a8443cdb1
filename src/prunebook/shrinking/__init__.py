"""Make a pruned network small: the graph, what flows through it, and the slicing of its layers."""
