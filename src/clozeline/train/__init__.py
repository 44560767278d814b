"""Training: `loop.py` is the generator of steps, `fit.py` the run around it."""
