"""The texts of a vocabulary, where a `tokenizer.json` lies beside the checkpoint; untrusted, and never executed."""

import json
from collections.abc import Callable, Mapping
from typing import Any

from weighbridge.checkpoints.protocol import Checkpoint
from weighbridge.errors import WeighbridgeError

FILE = "tokenizer.json"
_MAX_BYTES = 256 << 20
_MAX_TOKENS = 1 << 24
_BYTE_LEVEL_SPACE = "Ġ"


def tokens(checkpoint: Checkpoint) -> dict[int, str]:
    """The text of each token by its number; empty where there is no such file, or none that makes sense.

    A text is as the tokenizer writes it, with the mark that byte-level vocabularies have for a space read as one.
    """
    try:
        return _vocabulary(_parsed(checkpoint))
    except (WeighbridgeError, ValueError, TypeError, AttributeError, RecursionError):
        return {}


def channel_namer(known: Mapping[int, str], extent: int) -> Callable[[int], str]:
    """What one of `extent` channels is called: a token where the vocabulary is about as long, else its index."""
    if not known or not 0.9 * extent <= max(known) + 1 <= extent:
        return str
    return lambda index: f"{known.get(index, '')} · {index}" if index in known else str(index)


def _parsed(checkpoint: Checkpoint) -> Any:
    if checkpoint.folder is None:
        return {}
    source = checkpoint.folder.open(FILE)
    return json.loads(source.read(0, source.size)) if source.size <= _MAX_BYTES else {}


def _vocabulary(parsed: Any) -> dict[int, str]:
    """Of WordPiece and BPE a mapping from text to number, of Unigram a list in order; added tokens on top."""
    model = parsed.get("model") or {}
    vocab = model.get("vocab") or {}
    numbered = ((number, text) for text, number in vocab.items()) if isinstance(vocab, dict) else _listed(vocab)
    added = ((token.get("id"), token.get("content")) for token in parsed.get("added_tokens") or [])
    return {
        number: text.replace(_BYTE_LEVEL_SPACE, " ")
        for number, text in (*numbered, *added)
        if isinstance(number, int) and isinstance(text, str) and 0 <= number < _MAX_TOKENS
    }


def _listed(vocab: Any) -> Any:
    return enumerate(entry[0] for entry in vocab)
