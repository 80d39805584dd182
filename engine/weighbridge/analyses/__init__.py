"""Analyses of weights, one a file."""
