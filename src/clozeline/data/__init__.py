"""Data on its way to a model: reading, packing, corruption. `readers.py` is the place to start reading."""
