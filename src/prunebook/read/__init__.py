"""What a pruned network tells about its inputs and outputs."""
