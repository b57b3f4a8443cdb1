"""The methods: one file for each way to compute a mask."""
