"""Looking inside an encoder: how it reads, what its parts know, and what its answers rest on.

Each function gives a `View`: numbers, a figure and an offline page of the same thing.
"""
