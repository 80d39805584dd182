"""Virtual weights against the dense float64 product, written out for small random transformers of each family."""

import json

import numpy as np
import pytest
from safetensors.numpy import save_file

import weighbridge
from weighbridge.analyses.virtual_weights import rotated, virtual_weights
from weighbridge.errors import BadArgument

TOKENS, WIDTH, HEADS, INNER, LAYERS = 23, 24, 4, 40, 3
SIZE = WIDTH // HEADS


def stored(folder, tensors, **settings):
    save_file({name: x.astype(np.float32) for name, x in tensors.items()}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(settings))
    return folder


@pytest.fixture
def gpt2(tmp_path):
    rng = np.random.default_rng(0)
    tree = {"wte.weight": rng.standard_normal((TOKENS, WIDTH)), "ln_f.weight": rng.standard_normal(WIDTH)}
    for i in range(LAYERS):
        tree |= {
            f"h.{i}.attn.c_attn.weight": rng.standard_normal((WIDTH, 3 * WIDTH)),
            f"h.{i}.attn.c_proj.weight": rng.standard_normal((WIDTH, WIDTH)),
            f"h.{i}.mlp.c_fc.weight": rng.standard_normal((WIDTH, INNER)),
            f"h.{i}.mlp.c_proj.weight": rng.standard_normal((INNER, WIDTH)),
            f"h.{i}.ln_1.weight": rng.standard_normal(WIDTH),
            f"h.{i}.ln_2.weight": rng.standard_normal(WIDTH),
        }
    return stored(tmp_path, tree, n_head=HEADS, n_embd=WIDTH), tree


@pytest.fixture
def llama(tmp_path):
    """Two key and value heads for four heads, of a size that is not the width over the heads."""
    rng = np.random.default_rng(1)
    size = 10
    tree = {
        "model.embed_tokens.weight": rng.standard_normal((TOKENS, WIDTH)),
        "lm_head.weight": rng.standard_normal((TOKENS, WIDTH)),
        "model.norm.weight": rng.standard_normal(WIDTH),
    }
    for i in range(LAYERS):
        at = f"model.layers.{i}"
        tree |= {
            f"{at}.self_attn.q_proj.weight": rng.standard_normal((HEADS * size, WIDTH)),
            f"{at}.self_attn.k_proj.weight": rng.standard_normal((2 * size, WIDTH)),
            f"{at}.self_attn.v_proj.weight": rng.standard_normal((2 * size, WIDTH)),
            f"{at}.self_attn.o_proj.weight": rng.standard_normal((WIDTH, HEADS * size)),
            f"{at}.mlp.up_proj.weight": rng.standard_normal((INNER, WIDTH)),
            f"{at}.mlp.gate_proj.weight": rng.standard_normal((INNER, WIDTH)),
            f"{at}.mlp.down_proj.weight": rng.standard_normal((WIDTH, INNER)),
            f"{at}.input_layernorm.weight": rng.standard_normal(WIDTH),
            f"{at}.post_attention_layernorm.weight": rng.standard_normal(WIDTH),
        }
    settings = {"num_attention_heads": HEADS, "num_key_value_heads": 2, "head_dim": size, "hidden_size": WIDTH}
    return stored(tmp_path, tree, **settings, rope_theta=500.0), tree


def centring():
    return np.eye(WIDTH) - np.ones((WIDTH, WIDTH)) / WIDTH


def dense(found):
    return found.entries(slice(0, found.shape[0]), slice(0, found.shape[1]))


def assert_product(found, expected):
    assert found.shape == expected.shape
    np.testing.assert_allclose(dense(found), expected, rtol=0, atol=1e-5 * np.abs(expected).max())
    rows, cols = slice(1, min(7, found.shape[0])), slice(2, 5)
    np.testing.assert_allclose(found.entries(rows, cols), expected[rows, cols], atol=1e-5 * np.abs(expected).max())
    values = np.linalg.svd(expected, compute_uv=False)[: found.rank]
    np.testing.assert_allclose(found.singular_values()[: values.size], values, atol=1e-5 * values[0])


@pytest.mark.parametrize("head", range(HEADS))
def test_gpt2(gpt2, head):
    folder, tree = gpt2
    e, gain, final = tree["wte.weight"], np.diag(tree["h.1.ln_1.weight"]), np.diag(tree["ln_f.weight"])
    own = slice(head * SIZE, (head + 1) * SIZE)
    q, k, v = (w[:, own] for w in np.split(tree["h.1.attn.c_attn.weight"], 3, axis=1))
    o = tree["h.1.attn.c_proj.weight"][own]
    ov, qk = centring() @ gain @ v @ o, centring() @ gain @ q @ k.T @ gain @ centring() / np.sqrt(SIZE)
    assert_product(virtual_weights(folder, "ov", layer=1, head=head), ov)
    assert_product(virtual_weights(folder, "qk", layer=1, head=head), qk)
    assert_product(virtual_weights(folder, "qk", layer=1, head=head, space="tokens"), e @ qk @ e.T)
    logits = e @ ov @ centring() @ final @ e.T
    assert_product(virtual_weights(folder, "ov", layer=1, head=head, space="tokens"), logits)
    assert_product(virtual_weights(folder, "direct"), e @ centring() @ final @ e.T)
    between = (
        tree["h.0.mlp.c_proj.weight"] @ centring() @ np.diag(tree["h.2.ln_2.weight"]) @ tree["h.2.mlp.c_fc.weight"]
    )
    assert_product(virtual_weights(folder, "mlp", layer=0, to=2), between)


def rotation(position, size, base):
    """Rotary embeddings as a matrix on rows: coordinate i with i + size / 2."""
    turn = np.zeros((size, size))
    for i in range(size // 2):
        angle = position * base ** (-2 * i / size)
        j = i + size // 2
        turn[i, i] = turn[j, j] = np.cos(angle)
        turn[i, j], turn[j, i] = np.sin(angle), -np.sin(angle)
    return turn


@pytest.mark.parametrize("head", range(HEADS))
@pytest.mark.parametrize("offset", [0, 1, 17])
def test_llama(llama, head, offset):
    folder, tree = llama
    size, at = 10, "model.layers.2"
    e, u = tree["model.embed_tokens.weight"], tree["lm_head.weight"]
    gain, final = np.diag(tree[f"{at}.input_layernorm.weight"]), np.diag(tree["model.norm.weight"])
    own, shared = slice(head * size, (head + 1) * size), slice(head // 2 * size, (head // 2 + 1) * size)
    q, o = tree[f"{at}.self_attn.q_proj.weight"][own].T, tree[f"{at}.self_attn.o_proj.weight"][:, own].T
    k, v = (tree[f"{at}.self_attn.{name}_proj.weight"][shared].T for name in "kv")
    turn = rotation(50 + offset, size, 500.0) @ rotation(50, size, 500.0).T
    qk, ov = gain @ q @ turn @ k.T @ gain / np.sqrt(size), gain @ v @ o
    found = virtual_weights(folder, "qk", layer=2, head=head, offset=offset)
    assert_product(found, qk)
    assert found.note == f"its key is shared by heads {head // 2 * 2} to {head // 2 * 2 + 1}"
    assert_product(virtual_weights(folder, "qk", layer=2, head=head, offset=offset, space="tokens"), e @ qk @ e.T)
    assert_product(virtual_weights(folder, "ov", layer=2, head=head), ov)
    assert_product(virtual_weights(folder, "ov", layer=2, head=head, space="tokens"), e @ ov @ final @ u.T)
    assert_product(virtual_weights(folder, "direct"), e @ final @ u.T)
    for part in ("up", "gate"):
        read = np.diag(tree["model.layers.1.post_attention_layernorm.weight"])
        read = read @ tree[f"model.layers.1.mlp.{part}_proj.weight"].T
        expected = tree["model.layers.0.mlp.down_proj.weight"].T @ read
        assert_product(virtual_weights(folder, "mlp", layer=0, part=part), expected)


def test_minilm(minilm):
    weights = weighbridge.open(minilm)
    read = {name: weights[name].read().astype(float) for name in weights if "layer.3." in name or "embeddings" in name}
    at, own = "encoder.layer.3.attention", slice(2 * 32, 3 * 32)
    q, k, v = (read[f"{at}.self.{name}.weight"][own].T for name in ("query", "key", "value"))
    o = read[f"{at}.output.dense.weight"][:, own].T
    assert_product(virtual_weights(minilm, "ov", layer=3, head=2), v @ o)
    assert_product(virtual_weights(minilm, "qk", layer=3, head=2), q @ k.T / np.sqrt(32))
    first = virtual_weights(minilm, "qk", layer=0, head=5, space="tokens")
    assert first.shape == (30522, 30522)
    own = slice(5 * 32, 6 * 32)
    first_layer = (f"encoder.layer.0.attention.self.{name}.weight" for name in ("query", "key"))
    q, k = (weights[name].read()[own].astype(float).T for name in first_layer)
    e = read["embeddings.word_embeddings.weight"][:50]
    normed = (e - e.mean(axis=1, keepdims=True)) * read["embeddings.LayerNorm.weight"]
    np.testing.assert_allclose(
        first.entries(slice(0, 50), slice(0, 50)), normed @ q @ k.T @ normed.T / np.sqrt(32), atol=1e-5
    )
    for refused in ({"kind": "direct"}, {"kind": "mlp"}, {"kind": "ov", "space": "tokens"}):
        with pytest.raises(BadArgument, match=r"normalises after adding|no unembedding"):
            virtual_weights(minilm, **refused)
    with pytest.raises(BadArgument, match="normalises after adding"):
        virtual_weights(minilm, "qk", layer=1, space="tokens")


def test_what_cannot_be_asked(gpt2, digits):
    for wrong, match in (
        ({"kind": "ov", "layer": 3}, "no layer 3; expected 0 to 2"),
        ({"kind": "qk", "head": 4}, "no head 4; expected 0 to 3"),
        ({"kind": "qk", "offset": 1}, "no rotary"),
        ({"kind": "mlp", "layer": 1, "to": 1}, "a layer after 1"),
        ({"kind": "mlp", "part": "gate"}, "no gate"),
        ({"kind": "vo"}, "expected one of"),
    ):
        with pytest.raises(BadArgument, match=match):
            virtual_weights(gpt2[0], **wrong)
    with pytest.raises(BadArgument, match="none of gpt2, llama, bert"):
        virtual_weights(digits, "ov")


def test_settings_that_contradict_the_weights(gpt2):
    folder, _ = gpt2
    for settings, match in (
        ({}, "how many heads"),
        ({"n_head": 4, "n_embd": 99}, "width 99, the embedding has 24"),
        ({"n_head": 5}, "5 heads of 4"),
        ({"n_head": 4, "num_key_value_heads": 3}, "3 shared"),
    ):
        (folder / "config.json").write_text(json.dumps(settings))
        with pytest.raises(BadArgument, match=match):
            virtual_weights(folder, "ov")


def test_scaled_rotary_embeddings_and_norms_of_queries_are_refused(llama):
    folder, tree = llama
    settings = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(settings | {"rope_scaling": {"rope_type": "llama3"}}))
    assert virtual_weights(folder, "qk").rank == 10
    with pytest.raises(BadArgument, match="scaled or partial"):
        virtual_weights(folder, "qk", offset=2)
    for extra, match in (
        ("model.layers.0.self_attn.q_norm.weight", "norms of their own"),
        ("model.layers.0.post_feedforward_layernorm.weight", "normalise what they write"),
    ):
        stored(folder, tree | {extra: np.ones(10)}, **settings)
        with pytest.raises(BadArgument, match=match):
            virtual_weights(folder, "qk")


def test_rotation_is_an_isometry_that_adds_up():
    x = np.random.default_rng(2).standard_normal((5, 8)).astype(np.float32)
    np.testing.assert_allclose(np.linalg.norm(rotated(x, 9, 100.0), axis=1), np.linalg.norm(x, axis=1), rtol=1e-6)
    np.testing.assert_allclose(rotated(rotated(x, 2, 100.0), 3, 100.0), rotated(x, 5, 100.0), atol=1e-6)
    np.testing.assert_array_equal(rotated(x, 0, 100.0), x)
