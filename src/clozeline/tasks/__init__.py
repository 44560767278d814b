"""Tasks: one file each, holding everything about it: the data it takes, its targets, loss, decoding and metrics."""
