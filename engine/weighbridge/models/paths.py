"""Leaves of a tree of parameters by dotted path."""

from typing import Any

import jax
import jax.numpy as jnp

from weighbridge.errors import BadArgument


def named(tree: Any) -> dict[str, Any]:
    """Array leaves by dotted path, as `weighbridge.open` names those of a tree.

    Raises `BadArgument` where two leaves have the same path.
    """
    found: dict[str, Any] = {}
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        name = ".".join(map(_key, _own(path))) or "array"
        if name in found:
            raise BadArgument(f"two leaves are called {name!r}; rename one")
        found[name] = leaf
    return found


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
