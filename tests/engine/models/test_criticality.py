"""Criticality equals the explicit computation, example by example, in float64; what nothing depends on scores zero."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import weighbridge
from weighbridge.errors import BadArgument
from weighbridge.models import criticality_passes
from weighbridge.models.criticality_data import DatasetEnded
from weighbridge.models.criticality_moments import empty, merge, summarize
from weighbridge.models.criticality_result import selectivity

nnx = pytest.importorskip("flax.nnx")
linen = pytest.importorskip("flax.linen")

RNG = np.random.default_rng(5)
COUNT, CLASSES = 29, 3
X = RNG.normal(size=(COUNT, 5))
Y = RNG.integers(0, CLASSES, COUNT)
TASKS = RNG.choice(["cat", "dog"], COUNT)
SHAPES = {"hidden.kernel": (5, 7), "hidden.bias": (7,), "head.kernel": (7, CLASSES), "head.bias": (CLASSES,)}
WEIGHTS = {name: RNG.normal(size=shape) for name, shape in SHAPES.items()}
WEIGHTS["head.kernel"][4] = 0
DEAD = 4
"""A hidden unit without a path to the outputs."""
NO_CURVES = {"shares": ()}


class Net(nnx.Module):
    def __init__(self, rngs):
        self.hidden = nnx.Linear(5, 7, rngs=rngs)
        self.head = nnx.Linear(7, CLASSES, rngs=rngs)

    def __call__(self, x):
        return self.head(jnp.tanh(self.hidden(x)))


class LinenNet(linen.Module):
    @linen.compact
    def __call__(self, x):
        return linen.Dense(CLASSES, name="head")(jnp.tanh(linen.Dense(7, name="hidden")(x)))


def tree(weights=WEIGHTS):
    return {
        layer: {kind: jnp.asarray(weights[f"{layer}.{kind}"]) for kind in ("kernel", "bias")}
        for layer in ("hidden", "head")
    }


def plain(p, x):
    hidden = jnp.tanh(x @ p["hidden"]["kernel"] + p["hidden"]["bias"])
    return hidden @ p["head"]["kernel"] + p["head"]["bias"]


def of_kind(kind):
    """A network of the weights, in float64, and its `params`."""
    if kind == "plain":
        return plain, tree()
    if kind == "linen":
        return LinenNet().bind({"params": tree()}), None
    net = Net(nnx.Rngs(0))
    nnx.update(net, tree())
    return net, None


def batches(cuts=(4, 16), x=X, tasks=TASKS):
    return list(zip(*(np.split(a, cuts) for a in (x, Y, tasks)), strict=True))


def logits(weights, x):
    hidden = np.tanh(x @ weights["hidden.kernel"] + weights["hidden.bias"])
    return hidden @ weights["head.kernel"] + weights["head.bias"]


def losses(weights, x=X, y=Y):
    out = logits(weights, x)
    return np.log(np.exp(out).sum(axis=1)) - out[np.arange(len(y)), y]


def by_hand():
    """Each example's gradient by the chain rule, in NumPy: name to (examples, *shape)."""
    hidden = np.tanh(X @ WEIGHTS["hidden.kernel"] + WEIGHTS["hidden.bias"])
    out = logits(WEIGHTS, X)
    delta = np.exp(out) / np.exp(out).sum(axis=1, keepdims=True) - np.eye(CLASSES)[Y]
    back = (delta @ WEIGHTS["head.kernel"].T) * (1 - hidden**2)
    return {
        "hidden.kernel": X[:, :, None] * back[:, None, :],
        "hidden.bias": back,
        "head.kernel": hidden[:, :, None] * delta[:, None, :],
        "head.bias": delta,
    }


GRADIENTS = by_hand()
MEMBERS = {"all": np.ones(COUNT, bool), "cat": TASKS == "cat", "dog": TASKS == "dog"}


def standard_error(values):
    return values.std(axis=0, ddof=1) / np.sqrt(len(values))


@pytest.fixture(scope="module")
def found():
    """The result of a network of each kind; the plain one's batches are cut in another way."""
    with jax.enable_x64(True):
        return {
            kind: weighbridge.criticality(
                function, batches((1, 2, 28) if kind == "plain" else (4, 16)), params=params, **NO_CURVES
            )
            for kind, (function, params) in ((kind, of_kind(kind)) for kind in ("plain", "linen", "nnx"))
        }


@pytest.mark.parametrize("kind", ["plain", "linen", "nnx"])
def test_scores_of_weights_are_the_explicit_means(found, kind):
    result = found[kind]
    assert result.tasks == ("all", "cat", "dog")
    for i, among in enumerate(MEMBERS.values()):
        assert result.examples[i] == among.sum()
        np.testing.assert_allclose(result.loss[i], losses(WEIGHTS)[among].mean(), rtol=1e-12)
        np.testing.assert_allclose(result.accuracy[i], (logits(WEIGHTS, X).argmax(axis=1) == Y)[among].mean())
        for name, every in GRADIENTS.items():
            g, w = every[among], WEIGHTS[name]
            for got, expected in (
                (result.taylor[name][i], np.abs((w * g).mean(axis=0))),
                (result.taylor_error[name][i], standard_error(w * g)),
                (result.fisher[name][i], (g**2).mean(axis=0)),
                (result.fisher_error[name][i], standard_error(g**2)),
                (result.magnitude[name], np.abs(w)),
            ):
                np.testing.assert_allclose(got, expected, rtol=1e-10, atol=1e-15)


def test_sums_by_tensor_layer_and_channel(found):
    result = found["nnx"]
    parts = {name: (WEIGHTS[name] * g, g**2) for name, g in GRADIENTS.items()}
    for i, among in enumerate(MEMBERS.values()):
        kernel, bias = (parts[f"hidden.{kind}"] for kind in ("kernel", "bias"))
        by_unit = [(k.sum(axis=1) + b)[among] for k, b in zip(kernel, bias, strict=True)]
        for sums, (joint, square) in (
            (result.units["hidden"], by_unit),
            (result.layers["hidden"], [of.sum(axis=1) for of in by_unit]),
            (result.tensors["hidden.kernel"], [of[among].sum(axis=(1, 2)) for of in kernel]),
        ):
            np.testing.assert_allclose(sums.joint[i], np.abs(joint.mean(axis=0)), rtol=1e-10, atol=1e-14)
            np.testing.assert_allclose(sums.joint_error[i], standard_error(joint), rtol=1e-10, atol=1e-14)
            np.testing.assert_allclose(sums.fisher[i], square.mean(axis=0), rtol=1e-10, atol=1e-15)
            np.testing.assert_allclose(sums.fisher_error[i], standard_error(square), rtol=1e-10, atol=1e-15)
        expected = np.abs(kernel[0][among].mean(axis=0)).sum(axis=0) + np.abs(bias[0][among].mean(axis=0))
        np.testing.assert_allclose(result.units["hidden"].taylor[i], expected, rtol=1e-10, atol=1e-15)
        np.testing.assert_allclose(result.layers["hidden"].taylor[i], expected.sum(), rtol=1e-10)
    assert result.units["hidden"].tensors == ("hidden.bias", "hidden.kernel")


def test_leave_one_out_is_removal_by_hand(found):
    for layer, count in (("hidden", 7), ("head", CLASSES)):
        units = found["nnx"].units[layer]
        for unit in range(count):
            without = {name: w.copy() for name, w in WEIGHTS.items()}
            without[f"{layer}.kernel"][:, unit] = without[f"{layer}.bias"][unit] = 0
            change = losses(without) - losses(WEIGHTS)
            for i, among in enumerate(MEMBERS.values()):
                np.testing.assert_allclose(units.leave_one_out[i, unit], change[among].mean(), rtol=1e-9, atol=1e-13)
                error = standard_error(change[among])
                np.testing.assert_allclose(units.leave_one_out_error[i, unit], error, rtol=1e-9, atol=1e-13)


def test_any_cut_into_batches_and_any_number_of_units_at_a_time_give_the_same(found, monkeypatch):
    with jax.enable_x64(True):
        function, params = of_kind("plain")
        for cuts in ((), tuple(range(1, COUNT))):
            again = weighbridge.criticality(function, iter(batches(cuts)), params=params, **NO_CURVES)
            for name, values in found["plain"].taylor.items():
                np.testing.assert_array_equal(again.taylor[name], values)
        monkeypatch.setattr(criticality_passes, "CHUNK", 6)
        monkeypatch.setattr(criticality_passes, "UNITS_AT_ONCE", 4)
        again = weighbridge.criticality(function, batches(), params=params, **NO_CURVES)
    for name, values in found["plain"].fisher_error.items():
        np.testing.assert_allclose(again.fisher_error[name], values, rtol=1e-9, atol=1e-15)
    for layer, units in found["plain"].units.items():
        np.testing.assert_allclose(again.units[layer].leave_one_out, units.leave_one_out, rtol=1e-9, atol=1e-13)


def test_a_unit_without_a_path_to_the_output_scores_zero(found):
    for result in found.values():
        units = result.units["hidden"]
        for score in ("taylor", "joint", "fisher", "leave_one_out", "leave_one_out_error"):
            values = getattr(units, score)
            assert (values[:, DEAD] == 0).all(), score
            assert (np.delete(values, DEAD, axis=1) != 0).all(), score
        assert units.magnitude[DEAD] > 0
        assert np.isnan(units.selectivity()[DEAD])


def test_moments_merge_like_one_shot_far_from_zero():
    values = 1e8 + RNG.normal(size=(31, 4))
    parts = [summarize(part) for part in np.split(values, [0, 1, 9])]
    left, right = parts[0], parts[-1]
    for part in parts[1:]:
        left = merge(left, part)
    for part in parts[-2::-1]:
        right = merge(part, right)
    for state in (left, right, merge(empty((4,)), left)):
        np.testing.assert_allclose(state.value, values.mean(axis=0), rtol=1e-15)
        np.testing.assert_allclose(state.error, standard_error(values), rtol=1e-6)
    assert np.isnan(empty((4,)).value).all()
    assert np.isnan(summarize(values[:1]).error).all()


def test_selectivity():
    scores = np.array([[3.0, 1, 0, 2, np.nan], [0.0, 1, 0, 0, 1], [0.0, 1, 0, -2, 1], [0.0, 1, 0, 2, 1]])
    np.testing.assert_allclose(selectivity(scores), [1, 0, np.nan, (1 - 2 / 4) / (1 - 1 / 4), np.nan])
    assert np.isnan(selectivity(scores[:1])).all()


class Attention(nnx.Module):
    def __init__(self, rngs):
        self.attn = nnx.MultiHeadAttention(2, 6, decode=False, rngs=rngs)
        self.head = nnx.Linear(6, CLASSES, rngs=rngs)

    def __call__(self, x):
        return self.head(self.attn(x).mean(axis=1))


def test_heads_are_removed_whole():
    net = Attention(nnx.Rngs(1))
    x = RNG.normal(size=(9, 4, 6)).astype(np.float32)
    y = RNG.integers(0, CLASSES, 9)
    result = weighbridge.criticality(net, [(x, y)], leave_one_out=["attn"], **NO_CURVES)
    units = result.units["attn"]
    assert (units.kind, len(units.magnitude)) == ("head", 2)
    assert np.isnan(result.units["head"].leave_one_out).all()

    def loss():
        return -np.asarray(jax.nn.log_softmax(net(x)))[np.arange(9), y]

    before = loss()
    net.attn.out.kernel[...] = net.attn.out.kernel[...].at[1].set(0)
    np.testing.assert_allclose(units.leave_one_out[0, 1], (loss() - before).mean(), rtol=1e-4, atol=1e-7)


def test_heads_of_flat_kernels_are_as_many_as_the_caller_says():
    p = {f"attn.{name}.kernel": jnp.ones((3, 4)) for name in ("query", "key", "value")}
    p["attn.out.kernel"] = jnp.arange(12.0).reshape(4, 3)

    def function(p, x):
        return x @ sum(p[f"attn.{name}.kernel"] for name in ("query", "key", "value")) @ p["attn.out.kernel"]

    given = [(np.ones((2, 3), np.float32), np.array([0, 2]))]
    result = weighbridge.criticality(function, given, params=p, heads={"attn": 2}, **NO_CURVES)
    np.testing.assert_allclose(result.units["attn"].magnitude, [18 + 15, 18 + 51])
    for heads, why in (({"attn": 3}, "cannot have 3"), ({"mlp": 1}, "no attention 'mlp'.*there is: attn")):
        with pytest.raises(BadArgument, match=why):
            weighbridge.criticality(function, given, params=p, heads=heads, **NO_CURVES)


def test_keys_that_heads_share_belong_to_none():
    """Grouped queries: four heads, two of keys and values, in flax's layout and in flat kernels."""
    rng = np.random.default_rng(4)
    own = {"query": (5, 4, 2), "key": (5, 2, 2), "value": (5, 2, 2), "out": (4, 2, 3)}
    flat = {"query": (5, 8), "key": (5, 4), "value": (5, 4), "out": (8, 3)}
    given = [(rng.normal(size=(6, 5)).astype(np.float32), rng.integers(0, 3, 6))]
    for shapes, heads in ((own, {}), (flat, {"attn": 4})):
        p = {f"attn.{n}.kernel": rng.normal(size=of).astype(np.float32) for n, of in shapes.items()}

        def function(p, x):
            q, k, v = (x @ p[f"attn.{n}.kernel"].reshape(5, -1) for n in ("query", "key", "value"))
            return jnp.tanh(q + jnp.repeat(k * v, 2, axis=1)) @ p["attn.out.kernel"].reshape(8, 3)

        units = weighbridge.criticality(function, given, params=p, heads=heads, **NO_CURVES).units["attn"]
        assert (units.kind, len(units.magnitude)) == ("head", 4)
        of = [np.abs(p[f"attn.{n}.kernel"]) for n in ("query", "out")]
        expected = of[0].reshape(5, 4, 2).sum(axis=(0, 2)) + of[1].reshape(4, 2, 3).sum(axis=(1, 2))
        np.testing.assert_allclose(units.magnitude, expected, rtol=1e-5)


def small(dataset=None, **options):
    return weighbridge.criticality(
        plain, batches() if dataset is None else dataset, params=tree(), **{**NO_CURVES, "leave_one_out": (), **options}
    )


def test_examples_that_are_not_finite_are_counted_and_left_out():
    x = X.copy()
    x[[2, 20]] = np.nan
    result = small(batches(x=x))
    good = np.delete(np.arange(COUNT), [2, 20])
    assert result.broken[0] == 2
    assert result.broken[1:].sum() == 2
    assert result.examples[0] == COUNT - 2
    np.testing.assert_allclose(
        result.fisher["head.bias"][0], (GRADIENTS["head.bias"][good] ** 2).mean(axis=0), rtol=1e-4
    )


def test_curves_leave_out_what_is_not_finite():
    x, kept = X.copy(), np.delete(np.arange(COUNT), [2, 20])
    x[[2, 20]] = np.nan
    options = {"shares": (0.5, 1.0), "draws": 1}
    for mine, theirs in zip(
        small(batches(x=x), held_out=[(x, Y, TASKS)], **options).curves,
        small(batches(x=x), held_out=[(X[kept], Y[kept], np.array(TASKS)[kept])], **options).curves,
        strict=True,
    ):
        np.testing.assert_allclose(mine.loss, theirs.loss, rtol=1e-6)
        np.testing.assert_allclose(mine.accuracy, theirs.accuracy)


def test_curves_of_a_data_set_that_breaks_off_are_of_what_came_before(tmp_path):
    with pytest.raises(DatasetEnded, match="held_out: batch 2 raises OSError") as caught:
        small(held_out=broken("raises"), shares=(1.0,), draws=1, report=tmp_path)
    first, second, _ = batches()
    until = small(held_out=[first, second], shares=(1.0,), draws=1)
    for mine, theirs in zip(caught.value.partial.curves, until.curves, strict=True):
        np.testing.assert_allclose(mine.loss, theirs.loss, rtol=1e-6)
    rows = weighbridge.Report.open(tmp_path).table("criticality_curves")
    assert set(rows["reason"]) == {str(caught.value)}


def test_a_label_that_is_no_class_breaks_its_example():
    result = small([(X, np.where(np.arange(COUNT) == 3, -1, Y))])
    assert (result.broken[0], result.examples[0]) == (1, COUNT - 1)


def test_the_default_loss_of_coarse_outputs_is_fine():
    coarse = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.bfloat16), tree())
    result = weighbridge.criticality(plain, [(X, Y)], params=coarse, **{**NO_CURVES, "leave_one_out": ()})
    steps = result.loss[0] * COUNT * 2.0**6
    assert abs(steps - round(steps)) > 1e-3  # a sum of values of bfloat16 would be a multiple


def test_overwriting_without_curves_leaves_none_of_before(tmp_path):
    small(shares=(0.5,), draws=1, report=tmp_path)
    small(report=tmp_path)
    report = weighbridge.Report.open(tmp_path)
    assert "criticality_curves" not in report.manifest.analyses
    assert not list((tmp_path / "tables").glob("criticality_curves/part-*"))


def raising():
    yield from ()
    raise OSError("gone\nand more")


BAD = {
    "no examples": ({"dataset": []}, "dataset has no examples"),
    "no iterable": ({"dataset": 3}, "dataset is a int; expected an iterable"),
    "no pair": ({"dataset": [X]}, r"batch 0 is a ndarray; expected \(inputs, labels\)"),
    "counts": ({"dataset": [(X, Y[:-1])]}, r"batch 0 has shapes \(29, 5\), \(28,\)"),
    "inputs": ({"dataset": [(X[:, :4], Y)]}, r"function fails on inputs of shape \(1, 4\)"),
    "labels": ({"dataset": [(X, np.eye(COUNT, 2, dtype=int))]}, r"loss fails on outputs of shape \(1, 3\)"),
    "loss": ({"loss": lambda out, y: out}, r"loss gives float32 of shape \(1, 3\) for one example; expected one"),
    "layer": ({"leave_one_out": ["conv9"]}, "no layer 'conv9' in the network; there is: head, hidden"),
    "head": ({"heads": {"attn": 2}}, "no attention 'attn' in the network; there is: none"),
    "tensor": ({"layers": {"mlp": ["w"]}}, "no tensor 'w' for 'mlp'; there is: head.bias"),
    "tasks": ({"tasks": "class"}, "expected one of given, labels, none"),
    "task ids": ({"dataset": [(X, Y, X)]}, "tasks are float64"),
    "no name": ({"dataset": [(X, Y, [""] * len(X))]}, "a task is called '', as all examples together are"),
    "raises at once": ({"dataset": raising()}, "dataset: batch 0 raises OSError: gone; expected"),
    "task name": ({"dataset": [(X, Y, ["all"] * len(X))]}, "a task is called 'all', as all examples together are"),
    "draws": ({"draws": -1}, "draws is -1"),
    "parts of a draw": ({"draws": 2.5}, r"draws is 2\.5; expected a whole number"),
    "shares": ({"shares": (0.1, 2)}, "shares are"),
    "no tensor": ({"include": ["z"]}, "no tensor of real floats is left of 4"),
    "memory": ({"memory": 10}, "memory is 10 bytes; one example's gradient needs"),
    "once": ({"dataset": iter([(X, Y)]), "shares": (0.1,)}, "dataset can be read once; the curves need it again"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_call_that_does_not_fit_is_one_line_before_any_work(case, tmp_path):
    options, why = BAD[case]
    with pytest.raises(BadArgument, match=why) as caught:
        small(**options, report=tmp_path / "r")
    assert "\n" not in str(caught.value)
    assert "/" not in str(caught.value)


def broken(kind):
    first, second, _ = batches()
    yield first
    yield second
    if kind == "raises":
        raise OSError("the disk is gone\nand more")
    yield {
        "shape": (X[:, :3], Y, TASKS),
        "count": (X, Y[:-1]),
        "dtype": (X.astype(complex), Y, TASKS),
        "parts": (X, Y),
    }[kind]


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        ("raises", "batch 2 raises OSError: the disk is gone;"),
        ("shape", r"inputs have shape \(29, 3\)"),
        ("count", "28"),
        ("dtype", "inputs are complex128; expected float"),
        ("parts", "is of 2; expected 3, as in the batches before"),
    ],
)
def test_of_a_data_set_that_breaks_off_what_came_before_is_kept(tmp_path, kind, why):
    with pytest.raises(DatasetEnded, match=why) as caught:
        small(broken(kind), report=tmp_path)
    assert "\n" not in str(caught.value)
    partial = caught.value.partial
    assert partial.examples[0] == 16
    expected = (GRADIENTS["head.kernel"][:16] ** 2).mean(axis=0)
    np.testing.assert_allclose(partial.fisher["head.kernel"][0], expected, rtol=1e-4)
    report = weighbridge.Report.open(tmp_path)
    assert not report.complete
    rows = report.table("criticality")
    assert rows["examples"].max() == 16
    assert set(rows["reason"]) == {str(caught.value)}


def test_the_report_holds_the_result(tmp_path):
    result = small(leave_one_out=None, shares=(0.1, 0.5), draws=2, report=tmp_path)
    report = weighbridge.Report.open(tmp_path)
    assert report.complete
    rows = report.table("criticality").set_index(["name", "part"])
    assert rows.loc[("hidden.kernel", "dog"), "fisher"] == pytest.approx(result.tensors["hidden.kernel"].fisher[2])
    assert rows.loc[("head.bias", ""), "taylor"] == pytest.approx(result.tensors["head.bias"].taylor[0])
    units = report.table("criticality_units", lists=True).set_index(["name", "part"])
    assert list(units.loc[("hidden", "cat"), "tensors"]) == ["hidden.bias", "hidden.kernel"]
    np.testing.assert_allclose(
        units.loc[("hidden", "cat"), "unit_leave_one_out"], result.units["hidden"].leave_one_out[1]
    )
    curves = report.table("criticality_curves", lists=True)
    assert list(curves["name"]) == ["taylor", "fisher", "magnitude", "random", "random"]
    np.testing.assert_allclose(curves["loss"][1], result.curves[1].loss)
    again = small(include=["head.*"], report=tmp_path, if_exists="resume")
    rows = weighbridge.Report.open(tmp_path).table("criticality").set_index(["name", "part"])
    assert rows.loc[("head.bias", ""), "taylor"] == pytest.approx(again.tensors["head.bias"].taylor[0])
    assert len(rows) == 4 * 3


def test_curves_are_removal_by_hand():
    result = small(shares=(0.25, 1.0), draws=1)
    flat = np.concatenate([result.taylor[name][0].reshape(-1) for name in result.taylor])
    first = np.argsort(-flat, kind="stable")[: round(0.25 * len(flat))]
    keep = np.ones(len(flat))
    keep[first] = 0
    parts = np.split(keep, np.cumsum([v.size for v in result.magnitude.values()])[:-1])
    without = {
        name: WEIGHTS[name] * part.reshape(WEIGHTS[name].shape)
        for name, part in zip(result.magnitude, parts, strict=True)
    }
    curve = result.curves[0]
    np.testing.assert_allclose(curve.shares, [0, 0.25, 1])
    np.testing.assert_allclose(curve.loss, [losses(WEIGHTS).mean(), losses(without).mean(), np.log(CLASSES)], rtol=1e-5)
    np.testing.assert_allclose(curve.loss_error[1], standard_error(losses(without)), rtol=1e-4)
    rise = curve.loss - curve.loss[0]
    assert curve.loss_area == pytest.approx(0.25 * rise[1] / 2 + 0.75 * (rise[1] + rise[2]) / 2)


@pytest.fixture(scope="module")
def train_digits(script):
    return script("train_digits")


def test_the_top_of_the_digits_network_hurts_more_than_chance_and_magnitude(digits, train_digits):
    """Its kernels, scored and ablated on the test images; norms keep their scales, which magnitude would take first."""
    _, _, images, labels = train_digits.split()
    net = train_digits.load(digits)
    result = weighbridge.criticality(
        net, [(images, labels)], include=["*.kernel"], leave_one_out=(), shares=(0.05,), draws=20
    )
    at_top = {curve.score: curve.loss[-1] for curve in result.curves if curve.score != "random"}
    random = [curve.loss[-1] for curve in result.curves if curve.score == "random"]
    assert len(random) == 20
    for score in ("taylor", "fisher"):
        assert at_top[score] > max(random)
        assert at_top[score] > at_top["magnitude"]
