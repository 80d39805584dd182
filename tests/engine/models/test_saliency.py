"""Saliency equals hand computations on small functions and Captum's values on a small network, whatever the batches."""

import json
import subprocess
import sys
import textwrap
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.ad_checkpoint import checkpoint_name

import weighbridge
from weighbridge.errors import BadArgument
from weighbridge.models import saliency_batches
from weighbridge.models.saliency import METHODS, window_starts
from weighbridge.models.saliency_calls import network

SHARED_DATA = Path(__file__).resolve().parents[4] / "shared" / "data"
RNG = np.random.default_rng(7)
CLASSES = 5


def image_network(x):
    """A small convolutional network of (batch, 11, 13, 3), in plain JAX, its layers named."""
    x = checkpoint_name(convolved(x, KERNELS[0]), "conv1")
    x = checkpoint_name(convolved(jax.nn.relu(x), KERNELS[1]), "conv2")
    return jax.nn.relu(x).mean(axis=(1, 2)) @ KERNELS[2]


def convolved(x, kernel):
    numbers = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=numbers, precision="highest")


KERNELS = [
    RNG.normal(size=shape).astype(np.float32) / 3 for shape in ((3, 3, 3, 7), (3, 3, 7, CLASSES + 1), (6, CLASSES))
]
IMAGES = RNG.normal(size=(3, 11, 13, 3)).astype(np.float32)
TARGETS = np.array([4, 0, 2])
OPTIONS = {"smoothgrad": {"key": jax.random.key(3)}, "grad_cam": {"layer": "conv2"}}


def by_method(method, function=image_network, inputs=IMAGES, targets=TARGETS, **options):
    return weighbridge.saliency(function, inputs, targets, method=method, **OPTIONS.get(method, {}), **options)


def score(x, i):
    return image_network(x[None])[0, TARGETS[i]]


def gradient_of(x, i):
    return np.asarray(jax.grad(score)(jnp.asarray(x), i))


# Hand computations.


def test_gradient():
    found = by_method("gradient")
    np.testing.assert_allclose(found.values, [gradient_of(x, i) for i, x in enumerate(IMAGES)], rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(found.output, [score(x, i) for i, x in enumerate(IMAGES)], rtol=1e-5)
    assert found.target.tolist() == [[4], [0], [2]]
    assert np.isnan(found.baseline_output).all()
    assert found.steps.tolist() == [1, 1, 1]


def test_input_x_gradient_of_a_polynomial():
    x = np.array([[1.0, 2.0, -3.0]], np.float32)
    found = weighbridge.saliency(lambda x: (x**3).sum(axis=1), x, method="input_x_gradient")
    np.testing.assert_allclose(found.values, [[3, 24, -81]], rtol=1e-6)
    assert found.output.tolist() == [1 + 8 - 27]


@pytest.mark.parametrize("baseline", [0.0, 0.75, "own"])
def test_integrated_gradients_of_a_linear_model_are_exact(baseline):
    weights = RNG.normal(size=(13, CLASSES)).astype(np.float32)
    x = RNG.normal(size=(7, 13)).astype(np.float32)
    base = RNG.normal(size=(7, 13)).astype(np.float32) if baseline == "own" else np.full((7, 13), baseline, np.float32)
    given = base if baseline == "own" else baseline
    found = weighbridge.saliency(lambda x: jnp.matmul(x, weights, precision="highest"), x, 3, baseline=given)
    np.testing.assert_allclose(found.values, (x - base) * weights[:, 3], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found.baseline_output, base @ weights[:, 3], rtol=1e-4, atol=1e-5)
    assert found.converged.all()
    assert (found.steps == 64).all()
    assert (found.completeness_gap < 1e-5).all()


def test_integrated_gradients_are_the_midpoint_sum():
    found = by_method("integrated_gradients", baseline=0.1, steps=(5, 5))
    for i, x in enumerate(IMAGES):
        points = [0.1 + (s + 0.5) / 5 * (x - 0.1) for s in range(5)]
        expected = (x - 0.1) * np.mean([gradient_of(point, i) for point in points], axis=0)
        np.testing.assert_allclose(found.values[i], expected, rtol=1e-4, atol=1e-6)


def test_steps_double_until_the_gap_closes():
    """The midpoint sum of a steep step from 0 to 1 at a point a third along misses it until the pieces are narrow."""
    steepness = np.array([1.0, 600.0, 20_000.0], np.float32)

    def steep(x, sharp):
        return jax.nn.sigmoid(sharp * (x[:, 0] - 1 / 3))

    found = weighbridge.saliency(steep, np.ones((3, 1), np.float32), context=[steepness])
    assert found.steps[0] == 64
    assert 64 < found.steps[1] <= 512
    assert found.steps[2] == 512
    assert found.converged.tolist() == [True, True, False]
    difference = found.output - found.baseline_output
    gap = np.abs(found.values.sum(axis=1) - difference)
    np.testing.assert_allclose(found.completeness_gap, gap, atol=1e-6)
    assert (gap[:2] <= 0.01 * np.abs(difference[:2])).all()


def test_smoothgrad_is_the_mean_over_noise():
    """The gradient of a quadratic at noisy points is the gradient plus the mean noise, whose deviation is known."""
    x = RNG.normal(size=(2, 101)).astype(np.float32)
    run = partial(weighbridge.saliency, network(lambda x: (x**2).sum(axis=1) / 2), x, method="smoothgrad", samples=64)
    found = run(key=jax.random.key(0), noise=0.2).values - x
    deviation = 0.2 * np.ptp(x, axis=1) / np.sqrt(64)
    np.testing.assert_allclose(found.std(axis=1), deviation, rtol=0.3)
    np.testing.assert_allclose(run(key=jax.random.key(0), noise=0.0).values, x, rtol=1e-5, atol=1e-6)
    again = run(key=jax.random.key(0), noise=0.2).values - x
    assert np.array_equal(found, again)
    assert not np.array_equal(found, run(key=jax.random.key(1), noise=0.2).values - x)


@pytest.mark.parametrize("keep", ["signed", "positive"])
def test_grad_cam(keep):
    def head(activation, i):
        return (jax.nn.relu(activation).mean(axis=(0, 1)) @ KERNELS[2])[TARGETS[i]]

    found = by_method("grad_cam", keep=keep)
    activations = convolved(jax.nn.relu(convolved(IMAGES, KERNELS[0])), KERNELS[1])
    for i, activation in enumerate(activations):
        weights = np.asarray(jax.grad(head)(activation, i)).mean(axis=(0, 1))
        expected = (weights * np.asarray(activation)).sum(axis=-1)
        expected = expected if keep == "signed" else np.maximum(expected, 0)
        np.testing.assert_allclose(found.values[i], expected, rtol=1e-4, atol=1e-6)


def test_grad_cam_reads_a_pair_and_a_compiled_function_alike():
    expected = by_method("grad_cam").values
    np.testing.assert_allclose(by_method("grad_cam", jax.jit(image_network)).values, expected, rtol=1e-5)

    def features(x):
        return convolved(jax.nn.relu(convolved(x, KERNELS[0])), KERNELS[1])

    pair = (features, lambda a: jax.nn.relu(a).mean(axis=(1, 2)) @ KERNELS[2])
    found = weighbridge.saliency(pair, IMAGES, TARGETS, method="grad_cam")
    np.testing.assert_allclose(found.values, expected, rtol=1e-5)


@pytest.mark.parametrize(("window", "stride"), [((4, 5, 3), (3, 2, 3)), (3, 3), (5, 2), ((2, 2, 1), (2, 2, 1))])
def test_occlusion(window, stride):
    found = by_method("occlusion", window=window, stride=stride, baseline=0.3)
    sides = window if isinstance(window, tuple) else (window, window, 3)
    steps = stride if isinstance(stride, tuple) else (stride, stride, 3)
    total, times = np.zeros(IMAGES.shape), np.zeros(IMAGES.shape[1:])
    for start in np.ndindex(*(-(-(n - w) // s) + 1 for n, w, s in zip(IMAGES.shape[1:], sides, steps, strict=True))):
        at = tuple(slice(k * s, k * s + w) for k, s, w in zip(start, steps, sides, strict=True))
        covered = IMAGES.copy()
        covered[(slice(None), *at)] = 0.3
        drop = np.asarray(image_network(IMAGES) - image_network(covered))[np.arange(3), TARGETS]
        total[(slice(None), *at)] += drop[:, None, None, None]
        times[at] += 1
    assert times.min() > 0
    np.testing.assert_allclose(found.values, total / times, rtol=1e-3, atol=2e-6)


def test_windows_reach_every_entry():
    assert window_starts((7,), (3,), (2,)).ravel().tolist() == [0, 2, 4]
    assert window_starts((8,), (3,), (3,)).ravel().tolist() == [0, 3, 6]
    assert window_starts((2,), (2,), (1,)).ravel().tolist() == [0]


def test_occlusion_of_numbers_has_one_window():
    assert window_starts((), (), ()).shape == (1, 0)
    found = weighbridge.saliency(lambda x: 3 * x, np.array([1, -2, 4], np.float32), method="occlusion")
    np.testing.assert_allclose(found.values, [3, -6, 12])
    assert found.steps.tolist() == [1, 1, 1]


def test_occlusion_of_tables_and_tokens_takes_columns_and_tokens():
    x = RNG.normal(size=(4, 6)).astype(np.float32)
    weights = RNG.normal(size=6).astype(np.float32)
    found = weighbridge.saliency(lambda x: (x * weights).sum(axis=1), x, method="occlusion")
    np.testing.assert_allclose(found.values, x * weights, rtol=1e-4, atol=1e-6)
    tokens = RNG.normal(size=(2, 5, 6)).astype(np.float32)
    found = weighbridge.saliency(lambda x: (x * weights).sum(axis=(1, 2)), tokens, method="occlusion")
    expected = np.broadcast_to((tokens * weights).sum(axis=2, keepdims=True), tokens.shape)
    np.testing.assert_allclose(found.values, expected, rtol=1e-4, atol=1e-5)


# Captum.


@pytest.fixture(scope="module")
def captum():
    """The small network that Captum attributed, and its reference."""
    if not (SHARED_DATA / "captum_reference.npz").exists():
        pytest.skip("no folder shared/data with Captum's reference beside the repository")
    from safetensors.numpy import load_file

    weights = load_file(SHARED_DATA / "captum_network.safetensors")
    with np.load(SHARED_DATA / "captum_reference.npz") as stored:
        return network(captum_network, weights), dict(stored)


def captum_network(params, x):
    def conv(x, name):
        layout = ("NCHW", "OIHW", "NCHW")
        found = jax.lax.conv_general_dilated(
            x, params[f"{name}.weight"], (1, 1), [(1, 1)] * 2, dimension_numbers=layout, precision="highest"
        )
        return checkpoint_name(found + params[f"{name}.bias"][:, None, None], name)

    x = jax.nn.relu(conv(x, "conv1"))
    x = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 1, 2, 2), (1, 1, 2, 2), "VALID")
    x = jax.nn.relu(conv(x, "conv2")).mean(axis=(2, 3))
    return jnp.matmul(x, params["dense.weight"].T, precision="highest") + params["dense.bias"]


@pytest.mark.parametrize(
    ("reference", "options"),
    [
        ("saliency_signed", {"method": "gradient"}),
        ("input_x_gradient", {"method": "input_x_gradient"}),
        ("integrated_gradients_512_midpoint_zero_baseline", {"steps": (512, 512)}),
        ("integrated_gradients_512_midpoint_zero_baseline", {}),
        (
            "grad_cam_conv2_before_relu_no_relu",
            {"method": "grad_cam", "layer": "conv2", "channel_axis": 1, "keep": "signed"},
        ),
        ("occlusion_4x4_stride4_zero", {"method": "occlusion", "window": (3, 4, 4), "stride": (3, 4, 4)}),
    ],
    ids=["gradient", "input_x_gradient", "integrated 512", "integrated by default", "grad_cam", "occlusion"],
)
def test_captum_agrees(captum, reference, options):
    """Within 1e-4, and, because the values themselves are small, within a hundredth of the greatest."""
    net, stored = captum
    found = weighbridge.saliency(net, stored["input"], stored["target"], **options)
    expected = stored[reference]
    values = found.values.reshape(expected.shape)
    assert np.abs(values - expected).max() <= min(1e-4, 0.01 * np.abs(expected).max())
    chosen = np.take_along_axis(stored["output"], stored["target"][:, None], axis=1)[:, 0]
    np.testing.assert_allclose(found.output, chosen, atol=1e-6)
    assert found.converged.all()


# Batches and memory.


@pytest.mark.parametrize("method", METHODS)
def test_batches_change_nothing(method, monkeypatch):
    expected = by_method(method, steps=(7, 7), samples=7)
    for size in (1, 5):
        monkeypatch.setattr(saliency_batches, "_size", lambda *_, size=size: size)
        found = by_method(method, steps=(7, 7), samples=7)
        np.testing.assert_allclose(found.values, expected.values, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(found.output, expected.output, rtol=1e-5, atol=1e-6)


def test_inputs_do_not_see_each_other():
    together = by_method("smoothgrad", samples=5).values
    alone = by_method("smoothgrad", inputs=IMAGES[:1], targets=TARGETS[:1], samples=5).values
    np.testing.assert_allclose(together[:1], alone, rtol=1e-4, atol=1e-6)


def test_a_bound_that_one_input_exceeds_is_refused():
    with pytest.raises(BadArgument, match=r"memory is 100 bytes; one input needs [\d,]+, give at least that"):
        by_method("gradient", memory=100)
    with pytest.raises(BadArgument, match="memory is 0; expected a positive number of bytes"):
        by_method("gradient", memory=0)


def test_a_smaller_bound_gives_smaller_batches():
    sizes = []
    for memory in (1 << 17, 1 << 20, 1 << 24):
        case = weighbridge.models.saliency.Case.of(image_network, IMAGES, TARGETS, None, (), 0.0, memory)
        run = case.runs(weighbridge.models.saliency._on_line, weighbridge.models.saliency.gradients, "example", 512)
        assert saliency_batches._needed(run._network, run._job, run._arrays, run._slots) <= memory
        sizes.append(run._job.size)
    assert 1 <= sizes[0] < sizes[1] < sizes[2]


PEAK = """
    import json, sys
    import jax, jax.numpy as jnp, numpy as np
    import weighbridge

    kernels = [np.random.default_rng(0).normal(size=(3, 3, c, 32)).astype("f4") / 17 for c in (3, 32, 32, 32)]

    def network(x):
        for kernel in kernels:
            x = jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
            x = jax.nn.relu(x)
        return x.mean((1, 2))

    steps = int(sys.argv[1])
    images = np.random.default_rng(1).normal(size=(1, 56, 56, 3)).astype("f4")
    found = weighbridge.saliency(network, images, 3, steps=(steps, steps))
    assert found.steps.tolist() == [steps]
    status = open("/proc/self/status").read().splitlines()
    print(next(int(line.split()[1]) for line in status if line.startswith("VmHWM")))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads Linux's account of memory")
def test_peak_memory_does_not_grow_with_the_steps():
    peaks = [
        int(
            subprocess.run([sys.executable, "-c", textwrap.dedent(PEAK), steps], capture_output=True, check=True).stdout
        )
        for steps in ("8", "512")
    ]
    assert peaks[1] <= 1.3 * peaks[0], peaks


# Kinds of networks.


def test_flax_modules_are_the_functions_they_compute():
    nnx = pytest.importorskip("flax.nnx")
    from flax import linen

    class Mine(nnx.Module):
        def __init__(self, rngs):
            self.blocks = nnx.List([nnx.Conv(3, 6, (3, 3), rngs=rngs), nnx.Conv(6, 6, (3, 3), rngs=rngs)])
            self.norm = nnx.BatchNorm(6, rngs=rngs)
            self.drop = nnx.Dropout(0.5, rngs=rngs)
            self.head = nnx.Linear(6, CLASSES, rngs=rngs)

        def __call__(self, x):
            x = self.blocks[1](nnx.relu(self.norm(self.blocks[0](x))))
            return self.head(self.drop(nnx.relu(x).mean(axis=(1, 2))))

    class Theirs(linen.Module):
        @linen.compact
        def __call__(self, x):
            x = linen.relu(linen.BatchNorm(use_running_average=True)(linen.Conv(6, (3, 3), name="first")(x)))
            x = linen.relu(linen.Conv(6, (3, 3), name="second")(x)).mean(axis=(1, 2))
            return linen.Dense(CLASSES)(x)

    mine = Mine(nnx.Rngs(0))
    mine.eval()
    theirs = Theirs()
    variables = theirs.init(jax.random.key(0), IMAGES)
    for module, function, layer in (
        (mine, lambda x: mine(x), "blocks.1"),
        (theirs.bind(variables), partial(theirs.apply, variables), "second"),
    ):
        found, plain = (by_method("gradient", given) for given in (module, function))
        np.testing.assert_allclose(found.values, plain.values, rtol=1e-4, atol=1e-6)
        cam = weighbridge.saliency(module, IMAGES, TARGETS, method="grad_cam", layer=layer)
        assert cam.values.shape == (3, 11, 13)
        assert cam.values.max() > 0
        with pytest.raises(BadArgument, match=rf"layer 'third' is not in the network; its layers are .*{layer}"):
            weighbridge.saliency(module, IMAGES, TARGETS, method="grad_cam", layer="third")
    by_params = weighbridge.saliency(theirs.apply, IMAGES, TARGETS, method="gradient", params=variables)
    np.testing.assert_allclose(by_params.values, found.values, rtol=1e-4, atol=1e-6)
    with pytest.raises(BadArgument, match=r"has no variables; give module\.bind\(variables\)"):
        weighbridge.saliency(theirs, IMAGES, TARGETS)
    assert type(mine.blocks[1]) is nnx.Conv


def test_recomputed_layers_are_read_like_others():
    nnx = pytest.importorskip("flax.nnx")

    class Recomputed(nnx.Module):
        def __init__(self, again):
            self.conv, self.head = nnx.Conv(3, 6, (3, 3), rngs=nnx.Rngs(0)), nnx.Linear(6, CLASSES, rngs=nnx.Rngs(1))
            self.again = again

        def __call__(self, x):
            run = nnx.remat(lambda conv, x: nnx.gelu(conv(x))) if self.again else lambda conv, x: nnx.gelu(conv(x))
            return self.head(run(self.conv, x).mean(axis=(1, 2)))

    for options in ({"method": "gradient"}, {"method": "grad_cam", "layer": "conv"}):
        found, expected = (
            weighbridge.saliency(Recomputed(again), IMAGES, TARGETS, **options) for again in (True, False)
        )
        np.testing.assert_allclose(found.values, expected.values, rtol=1e-4, atol=1e-6)


def test_a_layer_in_a_loop_or_of_several_activations_is_refused():
    def looped(x):
        return jax.lax.fori_loop(0, 2, lambda i, x: checkpoint_name(x * 2, "inside"), x).sum(axis=(1, 2, 3))

    with pytest.raises(BadArgument, match="'inside' is inside a loop, a branch or a custom gradient"):
        weighbridge.saliency(looped, IMAGES, method="grad_cam", layer="inside")

    def twice(x):
        return (checkpoint_name(x, "a") + checkpoint_name(x * 2, "a")).sum(axis=(1, 2, 3))

    with pytest.raises(BadArgument, match="'a' has 2 activations in one call"):
        weighbridge.saliency(twice, IMAGES, method="grad_cam", layer="a")


def test_a_function_that_closes_over_what_changes_is_read_anew():
    held = {"scale": 2.0}

    def scaled(x):
        return held["scale"] * x.sum(axis=1)

    x = np.ones((2, 3), np.float32)
    assert (weighbridge.saliency(scaled, x, method="gradient").values == 2).all()
    held["scale"] = 5.0
    assert (weighbridge.saliency(scaled, x, method="gradient").values == 5).all()


def test_a_network_keeps_what_it_compiled():
    found = network(lambda p, x: p * x.sum(axis=1), jnp.float32(2))
    x = np.ones((2, 3), np.float32)
    assert (weighbridge.saliency(found, x, method="gradient").values == 2).all()
    programs = dict(found.compiled)
    assert (weighbridge.saliency(found, x + 1, method="gradient", params=jnp.float32(3)).values == 3).all()
    assert found.compiled == programs


def test_context_goes_with_its_input():
    x = RNG.normal(size=(5, 3)).astype(np.float32)
    mask = np.arange(15).reshape(5, 3) % 2 == 0
    found = weighbridge.saliency(lambda x, mask: (x * mask).sum(axis=1), x, method="gradient", context=[mask])
    np.testing.assert_array_equal(found.values, mask)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_narrow_inputs_are_summed_in_float32(dtype):
    x = jnp.asarray(RNG.normal(size=(2, 9)), dtype)
    found = weighbridge.saliency(lambda x: 3 * x.sum(axis=1), x)
    assert found.values.dtype == np.float32
    np.testing.assert_allclose(found.values, 3 * np.asarray(x, np.float32), rtol=0.01)


# What is odd.


@pytest.mark.parametrize("method", METHODS)
def test_nan_stays_in_its_own_input(method):
    broken = IMAGES.copy()
    broken[1, 2, 3, 0] = np.nan
    expected, found = (by_method(method, inputs=x, steps=(4, 8), samples=3) for x in (IMAGES, broken))
    np.testing.assert_allclose(found.values[[0, 2]], expected.values[[0, 2]], rtol=1e-4, atol=1e-6)
    assert np.isnan(found.output).tolist() == [False, True, False]
    assert np.isnan(found.values[1]).all()
    if method == "integrated_gradients":
        assert not found.converged[1]
        assert found.steps[1] == 4


@pytest.mark.parametrize("method", METHODS)
def test_no_inputs_give_no_values(method):
    found = by_method(method, inputs=IMAGES[:0], targets=3)
    assert found.values.shape == ((0, 11, 13) if method == "grad_cam" else (0, 11, 13, 3))
    assert found.output.shape == found.converged.shape == (0,)


@pytest.mark.parametrize("method", [m for m in METHODS if m != "grad_cam"])
def test_inputs_without_entries(method):
    found = by_method(method, lambda x: x.sum(axis=1) + 1, np.zeros((2, 0), np.float32), None)
    assert found.values.shape == (2, 0)
    assert found.output.tolist() == [1, 1]
    assert found.converged.all()


@pytest.mark.parametrize(
    ("call", "line"),
    [
        ({"targets": [0, 5, 1]}, r"targets\[1\] is 5; the network has 5 outputs, give 0 to 4"),
        ({"targets": -1}, r"targets\[0\] is -1; the network has 5 outputs, give 0 to 4"),
        (
            {"targets": [0, 1]},
            r"targets have shape \(2,\); expected one index, or 3, for each axis of the outputs \(5,\)",
        ),
        ({"targets": None}, r"targets is None; the outputs of an input have shape \(5,\), give the index of one"),
        ({"targets": 1.5}, r"targets are float64; expected integers, indices into outputs of shape \(5,\)"),
        ({"inputs": IMAGES.astype(np.int32)}, r"inputs are int32; expected floating-point values"),
        ({"baseline": np.zeros(4)}, r"baseline has shape \(4,\); expected one that broadcasts to the inputs' \(3, 11"),
        ({"method": "lime"}, r"method 'lime'; expected one of gradient, "),
        ({"method": "smoothgrad"}, r"smoothgrad draws noise; give key"),
        ({"method": "grad_cam"}, r"grad_cam needs layer"),
        ({"method": "grad_cam", "layer": "conv3"}, r"layer 'conv3' is not in the network; its layers are conv1, conv2"),
        ({"method": "occlusion", "window": 2, "stride": 3}, r"stride \(3, 3, 3\) is beyond the window \(2, 2, 3\)"),
        ({"method": "occlusion", "window": (2, 2)}, r"window is \(2, 2\); expected a positive int, or 3 of them"),
        ({"method": "occlusion", "window": [2]}, r"window is \[2\]; expected a positive int, or 3 of them in a tuple"),
        ({"method": "occlusion", "window": 2.5}, r"window is 2\.5; expected a positive int"),
        ({"method": "occlusion", "stride": (1.0, 1, 1)}, r"stride is \(1\.0, 1, 1\); expected a positive int"),
        ({"steps": (512, 64)}, r"steps is \(512, 64\); expected the fewest and the most"),
        ({"steps": 64}, r"steps is 64; expected the fewest and the most, such as \(64, 512\)"),
        ({"steps": (64.0, 512.0)}, r"steps is \(64\.0, 512\.0\); expected the fewest and the most"),
        ({"steps": (1, 2, 3)}, r"steps is \(1, 2, 3\); expected the fewest and the most"),
        (
            {"method": "smoothgrad", "samples": 2.5, "key": jax.random.key(0)},
            r"samples is 2\.5, noise 0\.15; expected an",
        ),
        ({"method": "smoothgrad", "key": 0}, r"key is 0; expected a key of jax\.random, such as jax\.random\.key\(0\)"),
        ({"inputs": [[1.0, 2.0], [3.0]]}, r"inputs cannot be an array: .*; give numbers, rows of one length"),
        ({"baseline": [[1.0, 2.0], [3.0]]}, r"baseline cannot be an array: "),
        ({"targets": [[1, 2], [3]]}, r"targets cannot be an array: "),
        ({"context": [[[1.0, 2.0], [3.0], [4.0]]]}, r"context cannot be an array: "),
        (
            {"function": lambda x: x.reshape(3, 429).sum(axis=1)},
            r"function fails on inputs of shape \(1, 11, .*; the function must treat any batch size",
        ),
        ({"function": lambda x: jnp.zeros(3)}, r"function gives shape \(3,\) for 1 inputs; .* treat any batch size"),
        ({"function": lambda x: x.reshape(len(x), -1)[:, : len(x)]}, r"gives outputs \(1,\) in a batch of 1; the func"),
        ({"function": lambda x: x.sum()}, r"function gives shape \(\) for 3 inputs; expected one array \(3, ...\)"),
        ({"inputs": IMAGES[..., :2]}, r"function fails on inputs of shape \(3, 11, 13, 2\): conv_general_dilated"),
        ({"function": 3}, r"function is a int; expected a flax module or a function of inputs"),
    ],
)
def test_a_bad_call_gives_one_line(call, line):
    arguments = {"function": image_network, "inputs": IMAGES, "targets": TARGETS, **call}
    with pytest.raises(BadArgument, match=line) as caught:
        weighbridge.saliency(**arguments)
    assert "\n" not in str(caught.value)


def test_older_keys_are_keys():
    options = {"method": "smoothgrad", "samples": 3}
    found = weighbridge.saliency(image_network, IMAGES, TARGETS, key=jax.random.PRNGKey(3), **options)
    np.testing.assert_array_equal(found.values, by_method("smoothgrad", samples=3).values)


def test_targets_index_outputs_of_several_axes():
    x = RNG.normal(size=(2, 4, 3)).astype(np.float32)
    found = weighbridge.saliency(lambda x: 2 * x, x, np.array([[3, 1], [0, 2]]), method="gradient")
    assert [tuple(at) for at in np.argwhere(found.values)] == [(0, 3, 1), (1, 0, 2)]
    assert found.values.max() == 2


def test_the_package_gives_it_lazily():
    code = "import json, sys, weighbridge; print(json.dumps('jax' in sys.modules)); weighbridge.saliency"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) is False
