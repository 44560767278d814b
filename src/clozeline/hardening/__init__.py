"""Find what a classifier cannot read, make it data, train on it, and prove what changed."""
