"""What a value of a walked function knows of the input: nothing, something that nobody follows, or a linear function.

A plain array depends on nothing that is followed and is held as it is.
"""

from dataclasses import dataclass, field
from typing import Any

import jax


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Upstream:
    """An array that depends on the input, but not through the layer that is followed, where no reference was given.

    It may be added to what is followed and nothing more, because `value` is a placeholder.
    """

    value: jax.Array


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Dependent:
    """A linear function of what is followed: its `value` as the algebra keeps it, and the array at the reference.

    `reference` is None where none was given. `gated` says that it comes straight out of a gate.
    """

    value: Any
    reference: jax.Array | None
    gated: bool = field(default=False, metadata={"static": True})


Operand = jax.Array | Upstream | Dependent


def level(operand: Operand) -> int:
    """0 for a constant, 1 for `Upstream`, 2 for `Dependent`: what joins two is the greater."""
    return 2 if isinstance(operand, Dependent) else int(isinstance(operand, Upstream))


def at_reference(operand: Operand) -> jax.Array | None:
    """Its array at the reference input; None where there is none."""
    if isinstance(operand, Dependent):
        return operand.reference
    return None if isinstance(operand, Upstream) else operand
