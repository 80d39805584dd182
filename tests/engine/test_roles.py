"""Roles are tested on the names of real checkpoints: one list a family in `tensor_names/`, judged by hand.

A line is name, dtype, shape, role and layer, separated by tabs; '-' stands for the shape of a scalar and for no layer.
"""

from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from weighbridge.roles import ROLES, Assignment, assign, is_conv_hwio

LISTS = sorted((Path(__file__).parent / "tensor_names").glob("*.txt"))
DTYPES = ("F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2", "F8_E8M0", "F4", "I64", "I32", "U32", "I8", "U8", "BOOL")


class Line(NamedTuple):
    name: str
    dtype: str
    shape: tuple[int, ...]
    expected: tuple[str, int | None]


def read(path: Path) -> list[Line]:
    return [parse(line) for line in path.read_text().splitlines()]


def parse(line: str) -> Line:
    name, dtype, shape, role, layer = line.split("\t")
    axes = () if shape == "-" else tuple(int(size) for size in shape.split(","))
    return Line(name, dtype, axes, (role, None if layer == "-" else int(layer)))


def mismatches(lines: list[Line]) -> list[tuple[str, Assignment, tuple[str, int | None]]]:
    siblings = {line.name for line in lines}
    assigned = [(line, assign(line.name, line.shape, line.dtype, siblings)) for line in lines]
    return [(line.name, got, line.expected) for line, got in assigned if got != line.expected]


@pytest.mark.parametrize("path", LISTS, ids=lambda path: path.stem)
def test_real_names(path: Path) -> None:
    assert mismatches(read(path)) == []


@pytest.mark.parametrize("separator", [".", "/"])
@pytest.mark.parametrize("path", LISTS, ids=lambda path: path.stem)
def test_the_separator_does_not_matter(path: Path, separator: str) -> None:
    translation = str.maketrans("./", separator * 2)
    assert mismatches([line._replace(name=line.name.translate(translation)) for line in read(path)]) == []


def test_a_colon_separates_too() -> None:
    lines = read(next(path for path in LISTS if path.stem == "minilm"))
    assert mismatches([line._replace(name=line.name.replace(".", ":")) for line in lines]) == []


@pytest.mark.parametrize("path", LISTS, ids=lambda path: path.stem)
def test_the_lists_name_known_roles(path: Path) -> None:
    assert {line.expected[0] for line in read(path)} <= set(ROLES)


def test_the_lists_show_every_role() -> None:
    assert {line.expected[0] for path in LISTS for line in read(path)} == set(ROLES)


@given(
    name=st.text() | st.from_regex(r"([a-z0-9_]{0,12}[./:]){0,6}[a-z0-9_]{0,12}(:0)?", fullmatch=True),
    shape=st.lists(st.integers(0, 1 << 40), max_size=6).map(tuple),
    dtype=st.sampled_from(DTYPES) | st.text(),
    siblings=st.sets(st.text()),
)
@example(name="layers." + "9" * 5000 + ".weight", shape=(2,), dtype="F32", siblings=set())
@example(name="layers.²." + "٣.weight", shape=(2,), dtype="F32", siblings=set())
def test_any_text_has_a_role(name: str, shape: tuple[int, ...], dtype: str, siblings: set[str]) -> None:
    role, layer = assign(name, shape, dtype, siblings)
    assert role in ROLES
    assert layer is None or layer >= 0
    assert isinstance(is_conv_hwio(name), bool)


@given(layer=st.integers(0, 10**9 - 1), expert=st.integers(0, 10**6))
def test_numbers_do_not_change_the_role(layer: int, expert: int) -> None:
    got = assign(f"model.layers.{layer}.mlp.experts.{expert}.w1.weight", (2, 3), "BF16")
    assert got == ("expert", layer)


def test_powers_of_two_are_scales_whatever_their_name() -> None:
    names = [line.name for path in LISTS for line in read(path)]
    assert {assign(name, (4, 4), "F8_E8M0").role for name in names} == {"scales"}


@pytest.mark.parametrize("suffix", ["_scale", "_scales", ".absmax"])
@pytest.mark.parametrize("dtype", ["U8", "I32"])
def test_packed_integers_are_codes_beside_their_scales(dtype: str, suffix: str) -> None:
    name = "model.layers.0.mlp.up_proj.weight"
    assert assign(name, (8, 4), dtype, {name, name + suffix}).role == "codes"
    assert assign(name, (8, 4), dtype, {name}).role == "mlp_up"


@pytest.mark.parametrize("dtype", ["F8_E4M3", "F8_E5M2", "F4", "F6_E2M3", "I8"])
def test_one_code_an_entry_is_a_weight(dtype: str) -> None:
    name = "model.layers.0.self_attn.q_proj.weight"
    assert assign(name, (8, 8), dtype, {name, name + "_scale_inv", name + "_scale"}) == ("attention_q", 0)


def test_the_bias_of_an_unnamed_normalisation_is_known_by_its_statistics() -> None:
    assert assign("layer2.0.downsample.1.bias", (8,), "F32").role == "bias"
    assert assign("layer2.0.downsample.1.bias", (8,), "F32", {"layer2.0.downsample.1.running_mean"}).role == "norm"


@pytest.mark.parametrize(
    ("shape", "role"),
    [((), "other"), ((7,), "other"), ((7, 5), "other"), ((7, 5, 3), "other"), ((7, 5, 3, 3), "conv")],
    ids=str,
)
@pytest.mark.parametrize("leaf", ["weight", "kernel"])
def test_four_axes_make_an_unknown_kernel_a_convolution(leaf: str, shape: tuple[int, ...], role: str) -> None:
    assert assign(f"unheard_of.{leaf}", shape, "F32").role == role
    assert assign(f"unheard_of.{leaf}", shape, "I64").role == "other"


@pytest.mark.parametrize(
    ("name", "channels_last"),
    [
        ("layer1.0.conv1.weight", False),
        ("features.0.weight", False),
        ("wav2vec2.encoder.pos_conv_embed.conv.weight_v", False),
        ("params/Conv_0/kernel", True),
        ("conv1.kernel", True),
        ("conv1/kernel/value", True),
        ("block1_conv1/block1_conv1/kernel:0", True),
        ("conv1_kernel:0", True),
        ("block_3_depthwise/depthwise_kernel:0", True),
        ("fire2/squeeze1x1/uniform2", True),
        ("kernel.weight", False),
        ("", False),
    ],
)
def test_kernels_of_flax_and_keras_are_channels_last(name: str, channels_last: bool) -> None:
    assert is_conv_hwio(name) is channels_last
