"""Images from Fourier coefficients, their colours and their movements, beside NumPy's and SciPy's."""

import numpy as np
import pytest

jax = pytest.importorskip("jax")

import jax.numpy as jnp  # noqa: E402
from scipy.ndimage import affine_transform, map_coordinates  # noqa: E402

from weighbridge.models.fourier_images import image, random_spectrum  # noqa: E402
from weighbridge.models.image_colours import _COVARIANCE_ROOT, COLOURS, correlated  # noqa: E402
from weighbridge.models.transforms import Movements, _sampled, moved  # noqa: E402

KEY = jax.random.key(0)


@pytest.mark.parametrize("shape", [(7, 10, 1), (10, 7, 3), (1, 1, 2)], ids=str)
def test_an_image_is_the_formula(shape):
    spectrum = np.asarray(random_spectrum(KEY, shape, 0.3), np.float64)
    height, width, _ = shape
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    scale = np.sqrt(height * width) / np.maximum(frequency, 1 / max(height, width))
    pixels = np.fft.irfft2((spectrum[0] + 1j * spectrum[1]) * scale[..., None], (height, width), axes=(0, 1)) / 4
    expected = 1 / (1 + np.exp(-(pixels @ COLOURS.T if shape[2] == 3 else pixels)))
    np.testing.assert_allclose(image(jnp.asarray(spectrum, jnp.float32), width), expected, atol=1e-5)


def test_colours_vary_together_as_in_photographs():
    draws = np.random.default_rng(1).standard_normal((200_000, 3)).astype(np.float32)
    expected = _COVARIANCE_ROOT @ _COVARIANCE_ROOT.T / np.linalg.norm(_COVARIANCE_ROOT, axis=0).max() ** 2
    np.testing.assert_allclose(np.cov(np.asarray(correlated(draws)).T), expected, atol=5e-3)


def test_photographs_vary_along_those_colours():
    """Brightness carries most, blue against yellow the next."""
    data = pytest.importorskip("skimage.data")
    pixels = np.concatenate([getattr(data, name)().reshape(-1, 3) for name in ("astronaut", "coffee", "chelsea")])
    values, vectors = np.linalg.eigh(np.cov(pixels.T))
    assert values[2] > 5 * values[1]
    brightness = COLOURS[:, 0] / np.linalg.norm(COLOURS[:, 0])
    assert abs(vectors[:, 2] @ brightness) > 0.95


def test_sampling_is_bilinear_and_goes_round():
    x = np.random.default_rng(2).random((5, 7, 2)).astype(np.float32)
    y, z = np.random.default_rng(3).uniform(-12, 12, (2, 11, 13)).astype(np.float32)
    found = np.asarray(_sampled(jnp.asarray(x), jnp.asarray(y), jnp.asarray(z)))
    for channel in range(2):
        expected = map_coordinates(x[..., channel], [y, z], order=1, mode="grid-wrap")
        np.testing.assert_allclose(found[..., channel], expected, atol=1e-5)


def test_no_movement_leaves_the_image_and_each_has_its_range():
    x = jnp.asarray(np.random.default_rng(4).random((9, 9, 1)), jnp.float32)
    assert moved(x, KEY, Movements(0, 0, 0)) is x
    barely = moved(x, KEY, Movements(1e-6, 1e-6, 1e-6))
    np.testing.assert_allclose(barely, x, atol=1e-4)


def test_a_turn_is_about_the_centre():
    x = np.random.default_rng(5).random((21, 21)).astype(np.float32)
    found = np.asarray(moved(jnp.asarray(x)[..., None], KEY, Movements(0, 0, 30)))[..., 0]
    angle = np.deg2rad(30 * jax.random.uniform(KEY, (4,), jnp.float32, -1, 1)[3])
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    expected = affine_transform(x, turn, np.full(2, 10.0) - turn @ np.full(2, 10.0), order=1, mode="grid-wrap")
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_movements_are_differentiable():
    x = jnp.asarray(np.random.default_rng(6).random((6, 5, 1)), jnp.float32)
    weights = jnp.asarray(np.random.default_rng(7).standard_normal((6, 5, 1)), jnp.float32)

    def total(x):
        return (weights * moved(x, KEY, Movements())).sum()

    gradient = jax.grad(total)(x)
    change = jnp.asarray(np.random.default_rng(8).standard_normal(x.shape), jnp.float32)
    np.testing.assert_allclose((gradient * change).sum(), total(x + change) - total(x), rtol=1e-3)  # it is linear
