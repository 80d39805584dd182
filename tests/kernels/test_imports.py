"""What the kernels import, and when: a scan on the CPU pays for no JAX, and kernels know nothing of the engine."""

import ast
import subprocess
import sys
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path

import pytest

import weighbridge_kernels

FILES = sorted(Path(weighbridge_kernels.__file__).parent.glob("*.py"))
LIGHT = (
    "affinities",
    "blocks",
    "cka",
    "convolution_spectrum",
    "descent",
    "distribution",
    "formats",
    "interpolation_grid",
    "johnson_lindenstrauss",
    "kl_divergence",
    "leading_spectrum",
    "localization",
    "marchenko_pastur",
    "nonnegative_factors",
    "null_similarity",
    "padding",
    "path_components",
    "power_law",
    "principal_angles",
    "principal_components",
    "projection_quality",
    "quantizers",
    "segments",
    "seriation",
    "similar_pairs",
    "spectral_density",
    "spectral_metrics",
    "states",
    "variants",
    "weight_banding",
)
HOST = tuple(path.stem for path in FILES if path.stem.endswith("_host"))
JAX = (
    "bit_histogram",
    "block_means",
    "block_quantization",
    "central_moments",
    "channel_norms",
    "correlation",
    "device_spans",
    "exponent_histogram",
    "finite_tile",
    "neighbours",
    "nmf",
    "pca",
    "pyramid",
    "random_projection",
    "semi_structured_sparsity",
    "similar_tiles",
    "span_pass",
    "spectrum",
    "tsne",
    "unit_rows",
)


def loaded_by(module: str) -> set[str]:
    """Top-level packages in memory after a fresh interpreter imports a module."""
    statement = f"import {module}, sys; print(*{{name.partition('.')[0] for name in sys.modules}})"
    run = subprocess.run([sys.executable, "-c", statement], capture_output=True, text=True, check=True)
    return set(run.stdout.split())


def imported_by(nodes: Iterable[ast.AST]) -> set[str]:
    """Top-level packages that import statements name, the standard library aside."""
    statements = [node for node in nodes if isinstance(node, ast.Import | ast.ImportFrom)]
    names = [alias.name for node in statements if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module or "" for node in statements if isinstance(node, ast.ImportFrom)]
    return {name.partition(".")[0] for name in names} - set(sys.stdlib_module_names)


@pytest.mark.parametrize("module", ["weighbridge_kernels", *(f"weighbridge_kernels.{name}" for name in LIGHT)])
def test_a_light_module_loads_neither_jax_nor_numba(module: str) -> None:
    assert loaded_by(module) & {"jax", "jaxlib", "numba", "weighbridge"} == set()


@pytest.mark.skipif(find_spec("numba") is None, reason="needs Numba")
@pytest.mark.parametrize("name", HOST)
def test_a_host_form_loads_no_jax(name: str) -> None:
    assert loaded_by(f"weighbridge_kernels.{name}") & {"jax", "jaxlib", "weighbridge"} == set()


def test_every_file_is_of_a_known_kind() -> None:
    assert {path.stem for path in FILES} == {"__init__", *LIGHT, *JAX, *HOST}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_only_the_packages_of_its_kind(path: Path) -> None:
    """What the file's import loads: statements at its top, none in a function or for the type checker alone."""
    own = {"numba", "scipy"} if path.stem in HOST else {"jax"} if path.stem in JAX else set()
    assert imported_by(ast.parse(path.read_text()).body) <= {"weighbridge_kernels", "numpy", *own}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_never_the_engine(path: Path) -> None:
    """SciPy, which comes with JAX, only within functions: its import takes longer than a scan of a small model."""
    everywhere = imported_by(ast.walk(ast.parse(path.read_text())))
    assert everywhere <= {"weighbridge_kernels", "numpy", "jax", "numba", "scipy", "jaxtyping"}
