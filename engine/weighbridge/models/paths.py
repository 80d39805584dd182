"""Leaves of a tree of parameters by dotted path, and which of them are wanted."""

import fnmatch
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp


def named(tree: Any) -> dict[str, Any]:
    """Array leaves by dotted path, as `weighbridge.open` names those of a tree."""
    paths = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {".".join(map(_key, _own(path))) or "array": leaf for path, leaf in paths}


def wanted(include: Sequence[str], exclude: Sequence[str]) -> Callable[[str], bool]:
    """Whether globs select a name: any of `include`, all where there is none, but none of `exclude`."""

    def selects(name: str) -> bool:
        included = not include or any(fnmatch.fnmatchcase(name, glob) for glob in include)
        return included and not any(fnmatch.fnmatchcase(name, glob) for glob in exclude)

    return selects


def is_real(leaf: Any) -> bool:
    """Whether a leaf holds real floats."""
    return hasattr(leaf, "dtype") and bool(jnp.issubdtype(leaf.dtype, jnp.floating))


def _own(path: Any) -> Any:
    """A path without the step from a flax variable to the array that it holds."""
    return path[:-1] if path and getattr(path[-1], "name", "") == "value" else path


def _key(entry: Any) -> str:
    for attribute in ("key", "idx", "name"):
        if hasattr(entry, attribute):
            return str(getattr(entry, attribute))
    return str(entry)
