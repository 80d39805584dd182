"""What lies beside the weights: config.json and tokenizer.json, of which none is trusted."""

import json

import numpy as np
import pytest
from safetensors.numpy import save_file

import weighbridge
from weighbridge.checkpoints import config as configs
from weighbridge.checkpoints.config import Heads, config, heads
from weighbridge.checkpoints.tokens import tokens
from weighbridge.errors import CorruptCheckpoint

SETTINGS = {"hidden_size": 64, "num_attention_heads": 8, "num_key_value_heads": 2}


@pytest.fixture
def folder(tmp_path):
    save_file({"x": np.zeros((2, 2), np.float32)}, tmp_path / "model.safetensors")
    return tmp_path


def test_settings_are_read_whatever_names_the_checkpoint(folder):
    (folder / "config.json").write_text(json.dumps({"a": 1, "text_config": {"n_head": 3}}))
    for source in (folder, folder / "model.safetensors"):
        assert config(weighbridge.open(source)) == {"a": 1, "text_config": {"n_head": 3}, "n_head": 3}
    assert config(weighbridge.open({"x": np.zeros(3)})) == {}


@pytest.mark.parametrize("text", ["", "[]", "{", "3", "[" * 100_000, '{"a": 1', "\x00"])
def test_settings_that_make_no_sense_are_one_line(folder, text):
    (folder / "config.json").write_text(text)
    with pytest.raises(CorruptCheckpoint, match=r"^config\.json: is ") as caught:
        config(weighbridge.open(folder))
    assert "\n" not in str(caught.value)


def test_settings_of_any_size_are_not_read(folder, monkeypatch):
    monkeypatch.setattr(configs, "_MAX_BYTES", 10)
    (folder / "config.json").write_text(json.dumps(SETTINGS))
    with pytest.raises(CorruptCheckpoint, match="expected at most 10"):
        config(weighbridge.open(folder))


def test_settings_outside_of_the_folder_are_not_read(folder, tmp_path_factory):
    secret = tmp_path_factory.mktemp("elsewhere") / "secret.json"
    secret.write_text("{}")
    (folder / "config.json").symlink_to(secret)
    with pytest.raises(CorruptCheckpoint, match="outside"):
        config(weighbridge.open(folder))


@pytest.mark.parametrize(
    ("settings", "role", "shape", "expected"),
    [
        (SETTINGS, "attention_q", (64, 64), Heads(8, 8, "rows")),
        (SETTINGS, "attention_k", (16, 64), Heads(2, 8, "rows")),
        (SETTINGS, "attention_v", (64, 16), Heads(2, 8, "cols")),
        (SETTINGS, "attention_o", (64, 64), Heads(8, 8, "cols")),
        (SETTINGS | {"head_dim": 16}, "attention_q", (128, 64), Heads(8, 16, "rows")),
        (SETTINGS | {"head_dim": 16}, "attention_o", (128, 64), Heads(8, 16, "rows")),
        ({"n_head": 4, "n_embd": 12}, "attention_k", (12, 12), Heads(4, 3, "rows")),
        (SETTINGS, "attention_q", (60, 60), None),
        (SETTINGS, "mlp_up", (64, 64), None),
        ({}, "attention_q", (64, 64), None),
        (SETTINGS | {"num_attention_heads": 0}, "attention_q", (64, 64), None),
        (SETTINGS | {"num_attention_heads": True}, "attention_q", (64, 64), None),
        (SETTINGS | {"num_attention_heads": "8"}, "attention_q", (64, 64), None),
        (SETTINGS | {"num_attention_heads": 10**30}, "attention_q", (64, 64), None),
        (SETTINGS | {"num_attention_heads": 128}, "attention_q", (64, 64), None),
    ],
)
def test_heads(settings, role, shape, expected):
    assert heads(settings, role, shape) == expected


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ({"vocab": {"a": 0, "Ġb": 1}}, {0: "a", 1: " b", 2: "<s>"}),
        ({"vocab": [["a", -1.0], ["b", -2.0]]}, {0: "a", 1: "b", 2: "<s>"}),
        ({"vocab": {"a": -1, "b": "1", "c": 1.5, "d": 10**30}}, {2: "<s>"}),
        (None, {2: "<s>"}),
    ],
)
def test_tokens(folder, model, expected):
    (folder / "tokenizer.json").write_text(json.dumps({"model": model, "added_tokens": [{"id": 2, "content": "<s>"}]}))
    assert tokens(weighbridge.open(folder)) == expected


@pytest.mark.parametrize("text", ["", "[]", "3", '{"model": 3}', '{"model": {"vocab": 7}}', '{"added_tokens": [1]}'])
def test_a_vocabulary_that_makes_no_sense_is_none(folder, text):
    (folder / "tokenizer.json").write_text(text)
    assert tokens(weighbridge.open(folder)) == {}


def test_minilm_has_its_tokens(minilm):
    found = tokens(weighbridge.open(minilm))
    assert len(found) == 30522
    assert (found[101], found[2000]) == ("[CLS]", "to")
