"""Every check finds what it is for and leaves alone what only looks like it; training is told from initialisers."""

from dataclasses import dataclass, field
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import weighbridge
from weighbridge import BadArgument, Finding, findings
from weighbridge.analyses.findings import CHECKS, SEVERITIES, reaches

RNG = np.random.default_rng(0)
F8 = ml_dtypes.float8_e4m3fn


def trained(*shape, dtype=np.float32, std=0.037):
    """Weights as no initialiser leaves them: heavy tails, a little skewed."""
    return (RNG.standard_t(4, shape) * std + 0.1 * std).astype(dtype)


def changed(array, index, value):
    array = array.copy()
    array[index] = value
    return array


@dataclass
class Case:
    """A check, what it must object to with the words of its evidence, and what it must not."""

    check: str
    bad: dict[str, Any]
    words: list[str]
    good: dict[str, Any] = field(default_factory=dict)


def layers(name: str, arrays):
    return {f"layers.{i}.{name}": array for i, array in enumerate(arrays)}


CASES = [
    Case(
        "unread",
        {"text": np.array(["x"])},
        ["text: failed, text: dtype <U1 holds no weights"],
        {"w": trained(8, 8), "none": np.zeros((0, 4), np.float32)},
    ),
    Case(
        "not-finite",
        {
            "w": changed(trained(8, 8), ([1, 2, 3], 0), [np.nan, np.inf, -np.inf]),
            "scales": np.array([0xFF], np.uint8).view(ml_dtypes.float8_e8m0fnu),
        },
        ["w: 1 NaN, 1 +Inf, 1 -Inf of 64", "scales: 1 NaN, 0 +Inf, 0 -Inf of 1"],
        {"w": trained(8, 8), "ids": np.arange(9)},
    ),
    Case(
        "all-zero",
        {"w": np.zeros((8, 8), ml_dtypes.bfloat16)},
        ["w: all 64 entries are 0"],
        {
            "linear.bias": np.zeros(8, np.float32),
            "norm.running_mean": np.zeros(8, np.float32),
            "ids": np.zeros(8, np.int64),
            "none": np.zeros((0, 4), np.float32),
            "w": changed(np.zeros((8, 8), np.float32), (3, 3), 1e-30),
        },
    ),
    Case(
        "clipping-scales",
        {
            "a.weight_scale": np.array([0.5, 0.0, 0.25], np.float32),
            "b.weight_scale_inv": np.array([[0.5, -0.5]], np.float32),
            "c.weight_scale": np.array([2.0**127, 1], np.float32).astype(ml_dtypes.float8_e8m0fnu),
            "d.weight_scale": np.full(10, 448.0, np.float32).astype(F8),
        },
        [
            "a.weight_scale: 1 zero scales, least 0; a scale must be positive",
            "b.weight_scale_inv: 0 zero scales, least -0.5",
            "c.weight_scale: greatest scale is 2^127, the end of E8M0's range",
        ],
        {
            "a.weight_scale": np.array([0.5, 1e-20, 0.25], np.float32),
            "b.weight_scale": np.array([1.0, 2.0], np.float32).astype(ml_dtypes.float8_e8m0fnu),
            "c.weight_scale": changed(np.full(1000, 3.0, np.float32), 7, 448).astype(F8),
            "d.weight.quant_map": np.linspace(-1, 1, 15, dtype=np.float32),
            "d.weight.nested_quant_map": np.linspace(-1, 1, 255, dtype=np.float32),
            "e.weight_zero_point": np.array([0.0, -3.0], np.float32),
            "f.scales": np.array([0.5, -0.5], np.float16),
            "f.biases": np.array([0.0, -0.5], np.float16),
            "w": trained(8, 8),
        },
    ),
    Case(
        "constant",
        {"w": np.full((8, 8), 0.25, np.float32)},
        ["w: all 64 entries are 0.25"],
        {
            "norm.weight": np.ones(8, np.float32),
            "linear.bias": np.full(8, 0.5, np.float32),
            "temperature": np.array([0.07], np.float32),
            "w": changed(np.full((8, 8), 0.25, np.float32), (0, 0), 0.5),
            "zero": np.zeros((8, 8), np.float32),
        },
    ),
    Case(
        "initialised",
        {
            "norm.weight": np.ones(8, np.float32),
            "norm.bias": np.zeros(8, np.float32),
            "w": RNG.normal(0, 0.02, (100, 100)).astype(np.float32),
        },
        ["norm.bias: every entry is 0", "norm.weight: every entry is 1", "w: normal with std 0.0", "as normal(0.02)"],
        {
            "norm.weight": 1 + trained(8),
            "norm.bias": np.full(8, 0.5, np.float32),
            "logit.bias": np.zeros(1, np.float32),
            "w": trained(100, 100, std=0.02),
            "small": RNG.normal(0, 0.02, (20, 20)).astype(np.float32),
        },
    ),
    Case(
        "dead-channels",
        {
            "rows": changed(trained(8, 6), [2, 5], 0),
            "cols": changed(trained(8, 6), (slice(None), 3), 0),
            "conv.weight": changed(trained(8, 6, 3, 3), (slice(None), 2), 0),
        },
        ["rows: 2 rows of 8×6 are all 0", "cols: 1 column of 8×6 are all 0", "conv.weight: 1 column of 8×6×3×3"],
        {
            "w": changed(trained(8, 6), (slice(None), 3), 1e-30),
            "nan": changed(trained(8, 6), 2, np.nan),
            "zero": np.zeros((8, 6), np.float32),
            "bias": np.zeros(8, np.float32),
            "codes": np.zeros((8, 6), np.int8),
        },
    ),
    Case(
        "saturated",
        {
            "high": np.clip(trained(100, 100, std=300), -448, 448).astype(F8),
            "low": np.clip(trained(100, 100, std=300), -448, 100).astype(F8),
        },
        ["high: 0.1% of entries or more on a side are ±448, the largest of F8_E4M3", "low: 0.1% of entries"],
        {
            "scaled": (448 * (x := trained(200, 200)) / np.abs(x).max()).astype(F8),
            "w": np.clip(trained(100, 100, std=300), -448, 448),
            "weight_scale": np.full(3, 448, np.float32).astype(F8),
        },
    ),
    Case(
        "outlier-tensors",
        layers("mlp.up_proj.weight", [trained(30, 30) * (20 if i == 3 else 1) for i in range(6)])
        | layers("mlp.down_proj.weight", [trained(30, 30) * (0.01 if i == 2 else 1) for i in range(6)]),
        [
            "layers.3.mlp.up_proj.weight: std ",
            "times the median of its 6 mlp_up peers",
            "layers.2.mlp.down_proj.weight",
        ],
        layers("mlp.up_proj.weight", [trained(30, 30) * (1 + i) for i in range(6)])
        | layers("mlp.down_proj.weight", [trained(30, 30) * 100 for i in range(6)])
        | layers("few", [trained(30, 30) * 100**i for i in range(3)]),
    ),
    Case(
        "outlier-channels",
        {
            "w": changed(x := trained(30, 40), 7, 100 * x[7]),
            "conv.kernel": trained(3, 3, 20, 30) * (1 + 99 * np.eye(1, 30, 9)),
        },
        ["w: 1 row", "conv.kernel: 1 row beyond 6 times the median norm"],
        {"w": trained(30, 40) * np.linspace(1, 4, 30, dtype=np.float32)[:, None]},
    ),
    Case(
        "wide-storage",
        {
            "a": trained(40, 40).astype(ml_dtypes.bfloat16).astype(np.float32),
            "b": trained(40, 40).astype(np.float16).astype(np.float32),
            "c": trained(40, 40).astype(np.float64),
        },
        [
            "a: F32 holds BF16 values, 3,200 bytes too many",
            "b: F32 holds F16 values, 3,200 bytes too many",
            "c: F64 holds F32 values, 6,400 bytes too many",
        ],
        {
            "a": trained(40, 40, dtype=ml_dtypes.bfloat16),
            "b": trained(40, 40),
            "c": trained(40, 40, dtype=np.float64),
            "few": np.array([1.0, 2.0], np.float32),
            "constant": np.ones((40, 40), np.float32),
        },
    ),
    Case(
        "tied",
        {"embed.weight": (x := trained(9, 7)), "lm_head.weight": x.copy(), "other": x.copy()},
        ["lm_head.weight: same bytes as embed.weight; other: same bytes as embed.weight"],
        {
            "a": x,
            "b": x.T.copy(),
            "c": changed(x, (0, 0), 0),
            "d.bias": np.zeros(9, np.float32),
            "e.bias": np.zeros(9, np.float32),
        },
    ),
    Case(
        "sparse-2of4",
        {"w": trained(16, 16) * np.tile([0, 1, 0, 1], 4).astype(np.float32)},
        ["w: 100.00% of groups of four have two zeros (50.0% zeros)"],
        {"w": trained(16, 16) * np.tile([0, 0, 1, 1, 1, 0, 1, 1], 2), "zero": np.zeros((16, 16), np.float32)},
    ),
]


def test_every_check_has_its_cases():
    assert [case.check for case in CASES] == [check.name for check in CHECKS if check.table == "scan"]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.check)
def test_finds(case, scanned):
    (finding,) = [finding for finding in findings(scanned(case.bad)) if finding.check == case.check]
    (check,) = [check for check in CHECKS if check.name == case.check]
    assert (finding.severity, finding.summary) == (check.severity, check.summary)
    expected = {"tied": {"lm_head.weight", "other"}, "outlier-tensors": OUTLIERS}.get(case.check, set(case.bad))
    assert set(finding.rows) == expected
    for words in case.words:
        assert words in finding.evidence


OUTLIERS = {"layers.3.mlp.up_proj.weight", "layers.2.mlp.down_proj.weight"}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.check)
def test_leaves_alone(case, scanned):
    assert [finding for finding in findings(scanned(case.good)) if finding.check == case.check] == []


SHAPES = {
    "square.weight": (256, 256),
    "wide.weight": (100, 500),
    "conv.weight": (64, 48, 3, 3),
    "conv.kernel": (3, 3, 48, 64),
}
FANS = {"square.weight": (256, 256), "wide.weight": (500, 100), "conv.weight": (432, 576), "conv.kernel": (432, 576)}
"""Inputs and outputs of one unit."""


def initialised(tree, scanned):
    """The tensors that look initialised."""
    found = [finding for finding in findings(scanned(tree)) if finding.check == "initialised"]
    return (set(found[0].rows), found[0].evidence) if found else (set(), "")


@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16], ids=["F32", "BF16"])
@pytest.mark.parametrize(
    ("distribution", "width", "words"),
    [
        ("normal", lambda fan_in, fan_out: 0.02, "normal with std 0.0"),
        ("uniform", lambda fan_in, fan_out: np.sqrt(2 / (fan_in + fan_out)), "as Xavier draws it"),
        ("normal", lambda fan_in, fan_out: np.sqrt(2 / (fan_in + fan_out)), "as Xavier draws it"),
        ("normal", lambda fan_in, fan_out: np.sqrt(2 / fan_in), "normal with std"),
        ("uniform", lambda fan_in, fan_out: np.sqrt(2 / fan_out), "flat to ±"),
        ("uniform", lambda fan_in, fan_out: np.sqrt(2 / (1 + 5) / fan_in), "as PyTorch's default draws it"),
    ],
    ids=["normal_002", "xavier_uniform", "xavier_normal", "he_normal", "he_uniform_out", "kaiming_uniform_sqrt5"],
)
def test_initialisers(distribution, width, words, dtype, scanned):
    rng = np.random.default_rng(1)
    draw = {"normal": rng.normal, "uniform": lambda _, std, shape: rng.uniform(-1, 1, shape) * std * np.sqrt(3)}
    tree = {name: draw[distribution](0, width(*FANS[name]), shape).astype(dtype) for name, shape in SHAPES.items()}
    names, evidence = initialised(tree, scanned)
    assert names == set(SHAPES)
    assert evidence.count(words) == 3


@pytest.mark.parametrize(
    "initialiser", ["lecun_normal", "he_normal", "he_uniform", "glorot_normal", "glorot_uniform", "orthogonal"]
)
def test_initialisers_of_jax(initialiser, scanned):
    """As flax uses them: its normal ones are cut off at two standard deviations."""
    import jax

    draw = getattr(jax.nn.initializers, initialiser)()
    shapes = {"dense.kernel": (100, 500), "conv.kernel": (3, 3, 48, 64)}
    tree = {name: np.asarray(draw(jax.random.key(0), shape, np.float32)) for name, shape in shapes.items()}
    names, evidence = initialised(tree, scanned)
    assert names == set(shapes)
    if initialiser in ("lecun_normal", "he_normal", "glorot_normal"):
        assert evidence.count("normal cut at ±") == 2


def skew_normal(rng, shape, delta=0.768):
    """Of variance 1, skewness 0.2 and an excess kurtosis of 0.1, which is that of a normal within its noise."""
    a, b = rng.normal(size=(2, *shape))
    skewed = delta * np.abs(a) + np.sqrt(1 - delta**2) * b
    return (skewed - skewed.mean()) / skewed.std()


@pytest.mark.parametrize(
    "draw",
    [
        lambda rng, shape: rng.standard_t(5, shape) * np.sqrt(3 / 5),
        lambda rng, shape: rng.laplace(0, 1 / np.sqrt(2), shape),
        lambda rng, shape: rng.normal(0, 1.1, shape),
        lambda rng, shape: rng.normal(0.3, 1, shape),
        skew_normal,
        lambda rng, shape: np.sign(rng.normal(size=shape)),
        lambda rng, shape: changed(rng.uniform(-1, 1, shape), (0,) * len(shape), 2) * np.sqrt(3),
    ],
    ids=["heavy_tails", "laplace", "wider", "shifted", "skewed", "two_values", "flat_with_one_beyond"],
)
def test_what_no_initialiser_leaves(draw, scanned):
    """All but the wider ones have the width of normal(0.02), and another shape."""
    rng = np.random.default_rng(2)
    tree = {name: (draw(rng, shape) * 0.02).astype(np.float32) for name, shape in SHAPES.items()}
    assert initialised(tree, scanned) == (set(), "")


def test_the_network_in_the_package(digits, scanned):
    """Trained with a group lasso, which killed units of its hidden layer; nothing else is to be said."""
    found = {finding.check: finding.rows for finding in findings(scanned(digits))}
    assert found == {"dead-channels": ("dense.kernel",), "outlier-channels": ("dense.kernel",)}


def test_a_trained_transformer(minilm, scanned):
    """Its pooler was never trained: the bias is zero still, and the matrix holds values of float16."""
    found = {finding.check: finding.rows for finding in findings(scanned(minilm))}
    assert found.pop("initialised") == ("pooler.dense.bias",)
    assert found.pop("wide-storage") == ("pooler.dense.weight",)
    assert set(found) == {"outlier-channels"}


def test_a_trained_residual_network(resnet20, scanned):
    assert "initialised" not in {finding.check for finding in findings(scanned(resnet20))}


def test_worst_first(scanned):
    tree = {}
    for case in CASES:
        tree |= {f"{case.check}.{name}": array for name, array in case.bad.items()}
    found = findings(scanned(tree))
    places = [(SEVERITIES.index(finding.severity), [c.name for c in CHECKS].index(finding.check)) for finding in found]
    assert places == sorted(places)
    assert {finding.severity for finding in found} == set(SEVERITIES)


def test_evidence_names_three_and_counts_the_rest(scanned):
    found = findings(scanned({f"w{i}": np.full((4, 4), i + 1.0, np.float32) for i in range(1200)}))
    (finding,) = [finding for finding in found if finding.check == "constant"]
    assert finding.evidence.count("all 16 entries are") == 3
    assert finding.evidence.endswith("; and 1,197 more")
    assert len(finding.rows) == 1200


def test_nothing_to_say(scanned):
    assert findings(scanned({"w": trained(8, 8)})) == []
    assert findings(scanned({})) == []


@pytest.mark.parametrize("severity", SEVERITIES)
def test_reaches(severity):
    for worst in SEVERITIES:
        found = [Finding("check", worst, "", "", ()), Finding("check", "info", "", "", ())]
        assert reaches(found, severity) == (SEVERITIES.index(worst) <= SEVERITIES.index(severity) or severity == "info")
    assert not reaches([], severity)


def test_an_unknown_severity():
    with pytest.raises(BadArgument, match="severity 'fatal'; expected one of error, warning, info"):
        reaches([], "fatal")


def test_findings_is_a_function_of_the_package():
    assert weighbridge.findings is findings
