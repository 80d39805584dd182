"""Pyramids over matrices: levels of block reductions, built once, kept in the user's cache, read by window."""

from weighbridge.pyramid.build import build
from weighbridge.pyramid.cache import Build, PyramidCache
from weighbridge.pyramid.matrix import Matrix, WeightMatrix, matrix_of
from weighbridge.pyramid.similarity import Preparation, SimilarityMatrix, similarities
from weighbridge.pyramid.store import Pyramid

__all__ = [
    "Build",
    "Matrix",
    "Preparation",
    "Pyramid",
    "PyramidCache",
    "SimilarityMatrix",
    "WeightMatrix",
    "build",
    "matrix_of",
    "similarities",
]
