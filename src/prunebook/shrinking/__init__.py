"""Make a pruned network small: trace its graph, follow its channels, slice its layers."""
