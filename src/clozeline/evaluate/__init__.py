"""Evaluation: what a model's answers are worth, with the uncertainty of the figures."""
