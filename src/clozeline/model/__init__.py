"""The encoder and the bricks it is made of. `encoder.py` is the place to start reading."""
