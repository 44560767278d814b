"""Behaviour of a trained classifier: what it fails at, by capability and by slice, and what may be wrong with its labels."""
