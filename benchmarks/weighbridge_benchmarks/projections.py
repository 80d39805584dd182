"""How long neighbours, PCA, NMF and t-SNE of a real vocabulary take, beside NumPy, scikit-learn and openTSNE.

    python -m weighbridge_benchmarks.projections --json results.json

MiniLM's 30,522 × 384 vocabulary. What is not installed is left out. Every figure of a peer is of the same run, in
turns, after one round that is not counted, in which ours compiles. `--device gpu` measures our forms on an accelerator,
and the product of the same blocks there; peers stay on the host. t-SNE is of the first rows alone, from the same
neighbours and the same start, and both maps are scored by one exact evaluator.
"""

import argparse
import os
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

import weighbridge
from weighbridge import demo
from weighbridge_benchmarks.ceilings import host_read
from weighbridge_benchmarks.spectra import Work, in_turns
from weighbridge_benchmarks.suite import machine, tell
from weighbridge_kernels import variants
from weighbridge_kernels.affinities import affinities, neighbours_needed
from weighbridge_kernels.descent import scaled_start
from weighbridge_kernels.kl_divergence import kl_divergence
from weighbridge_kernels.variants import Variant

_BLOCK = 2048
PERPLEXITY = 30.0
ITERATIONS = (250, 500)

Array = np.ndarray[Any, np.dtype[Any]]


def vocabulary() -> Array:
    """The word embeddings of the encoder, float32."""
    return weighbridge.open(demo.locate("minilm"))["embeddings.word_embeddings.weight"].read()


def neighbours(x: Array, kernels: Variant, count: int = 15) -> dict[str, Any]:
    """The nearest rows by cosine of every row, and the share of the time that the product alone would take."""
    units = x / np.linalg.norm(x, axis=1, keepdims=True)
    starts = range(0, len(x), _BLOCK)

    def blocked() -> None:
        for at in starts:
            scores = units[at : at + _BLOCK] @ units.T
            scores[np.arange(len(scores)), np.arange(at, at + len(scores))] = -np.inf
            nearest = np.argpartition(scores, -count, axis=1)[:, -count:]
            np.take_along_axis(scores, nearest, axis=1)

    works: dict[str, Work] = {
        "neighbours": lambda: kernels.neighbours(x, x, count=count, first=0),
        "correlations": lambda: kernels.correlations(x, count=count),
        "product": _product_alone(units, kernels),
        "numpy": blocked,
    }
    return _ratios(in_turns(works, 2), "neighbours")


def _product_alone(units: Array, kernels: Variant) -> Work:
    """The products that `neighbours` takes, where it takes them: on the host of each pair of blocks one, else both."""
    blocks = [units[at : at + _BLOCK] for at in range(0, len(units), _BLOCK)]
    if kernels.name == "host":

        def on_host() -> None:
            for i, a in enumerate(blocks):
                for b in blocks[i:]:
                    a @ b.T

        return on_host

    import jax

    from weighbridge_kernels.similar_tiles import product

    def on_device() -> None:
        for a in held:
            jax.block_until_ready([product(a, b) for b in held])  # type: ignore[no-untyped-call]

    held = [kernels.put(block) for block in blocks]
    return on_device


def components(x: Array, kernels: Variant, count: int = 50) -> dict[str, Any]:
    """Principal components and scores."""
    works: dict[str, Work] = {"pca": lambda: _scores(x, kernels, count)}
    if find_spec("sklearn"):
        from sklearn.decomposition import PCA

        works["sklearn"] = lambda: PCA(count).fit_transform(x)
    return _ratios(in_turns(works, 5), "pca")


def _scores(x: Array, kernels: Variant, count: int) -> Array:
    form = kernels.module("pca")
    scores: Array = form.scores(x, form.pca(lambda: iter([x]), x.shape, count=count))
    return scores


def factors(x: Array, kernels: Variant, count: int = 8, iterations: int = 20) -> dict[str, Any]:
    """Non-negative factors of the positive and the negative part, with their losses."""
    joined = np.concatenate([np.maximum(x, 0), np.maximum(-x, 0)])
    losses: dict[str, float] = {}

    def ours() -> None:
        found = kernels.module("nmf").nmf(joined, count, iterations=iterations, tolerance=0.0)
        losses["nmf"] = found.error

    works: dict[str, Work] = {"nmf": ours}
    if find_spec("sklearn"):
        works["sklearn"] = lambda: losses.update(sklearn=_sklearn_nmf(joined, count, iterations))
    return _ratios(in_turns(works, 3), "nmf") | {"loss": losses}


def _sklearn_nmf(x: Array, count: int, iterations: int) -> float:
    import warnings

    from sklearn.decomposition import NMF

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it has not converged is meant
        return float(NMF(count, init="nndsvd", max_iter=iterations, tol=0).fit(x).reconstruction_err_)


def embedding(x: Array, kernels: Variant) -> dict[str, Any]:
    """t-SNE by cosine from given neighbours and a given start, with the divergence of both maps."""
    count = neighbours_needed(PERPLEXITY, len(x))
    found = kernels.neighbours(x, x, count=count, first=0)
    graph = affinities(1 - found.values.astype(np.float64), found.indices, PERPLEXITY, kind="plain")
    start = scaled_start(_scores(x, kernels, 2), key=0)
    form = kernels.module("tsne")
    maps: dict[str, Array] = {}
    works: dict[str, Work] = {"tsne": lambda: maps.update(tsne=form.tsne(graph, start, iterations=ITERATIONS).points)}
    if find_spec("openTSNE"):
        works["openTSNE"] = _opentsne(graph, start, maps)
    figures = _ratios(in_turns(works, 1), "tsne")
    return figures | {"kl": {name: float(kl_divergence(graph, points)) for name, points in maps.items()}}


def _opentsne(graph: Any, start: Array, maps: dict[str, Array]) -> Work:
    """The same affinities and start through openTSNE's own optimiser, with two jobs."""
    from openTSNE import TSNEEmbedding
    from openTSNE.affinity import PrecomputedAffinities
    from scipy.sparse import csr_matrix

    p = csr_matrix((graph.weights, graph.indices, graph.indptr), shape=(len(start), len(start)))

    def run() -> None:
        embedding = TSNEEmbedding(
            start.astype(np.float64), PrecomputedAffinities(p, normalize=False), n_jobs=2, random_state=0
        )
        first, second = ITERATIONS
        embedding.optimize(first, exaggeration=12, momentum=0.5, inplace=True)
        embedding.optimize(second, momentum=0.8, inplace=True)
        maps["openTSNE"] = np.asarray(embedding)

    return run


def _ratios(seconds: dict[str, float], ours: str) -> dict[str, Any]:
    return {"seconds": seconds, "of_other": {name: seconds[ours] / s for name, s in seconds.items() if name != ours}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000, help="of the vocabulary, for t-SNE")
    parser.add_argument("--device", default="auto", choices=variants.DEVICES)
    parser.add_argument("--json", type=Path, help="where the figures go")
    given = parser.parse_args()
    kernels: Variant = variants.select(given.device)
    x = vocabulary()
    figures: dict[str, Any] = {"machine": machine(), "host_read": host_read(2), "cores": os.cpu_count()}
    began = time.perf_counter()
    figures["neighbours"] = neighbours(x, kernels)
    figures["pca"] = components(x, kernels)
    figures["nmf"] = factors(x, kernels)
    figures["tsne"] = {"rows": given.rows} | embedding(np.ascontiguousarray(x[: given.rows]), kernels)
    figures["seconds_in_all"] = time.perf_counter() - began
    tell(figures, given.json)


if __name__ == "__main__":
    main()
