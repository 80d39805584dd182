"""What two groups are compared by: a number of each input, of which a group has the mean."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from weighbridge.errors import BadArgument
from weighbridge.models.saliency_calls import Network, abstract

Kind = Literal["score", "probability", "true_positive_rate"]
KINDS: tuple[Kind, ...] = get_args(Kind)
PerInput = Callable[[Any, Any], Any]


@dataclass(frozen=True)
class Metric:
    """A differentiable number of each input, which is attributed, and the exact one, which is reported."""

    kind: str
    target: int | None
    functions: tuple[PerInput, PerInput] | None = None
    classes: int | None = None
    """Width of the outputs; None for one number an input, with a decision at 0."""
    judged: bool = False
    """Whether labels are classes, so that predictions are right or wrong."""

    @property
    def name(self) -> str:
        return self.kind if self.target is None else f"{self.kind} of class {self.target}"

    def surrogate(self, outputs: Any, labels: Any) -> Any:
        """(batch,): the exact number, of a true-positive rate the probability of the class."""
        if self.functions is not None:
            return self.functions[0](outputs, labels)
        if self.kind == "score":
            return outputs if self.classes is None else outputs[:, self.target]
        return jax.nn.sigmoid(outputs) if self.classes is None else jax.nn.softmax(outputs)[:, self.target]

    def exact(self, outputs: Any, labels: Any) -> Any:
        """(batch,)."""
        if self.functions is not None:
            return self.functions[1](outputs, labels)
        if self.kind == "true_positive_rate":
            return self._predicted(outputs) == (1 if self.classes is None else self.target)
        return self.surrogate(outputs, labels)

    def correct(self, outputs: Any, labels: Any) -> Any:
        """(batch,): whether the prediction is the label; NaN where nobody can know."""
        if not self.judged:
            return jnp.full(len(outputs), jnp.nan)
        return self._predicted(outputs) == labels

    def applies(self, labels: npt.NDArray[Any] | None, count: int) -> npt.NDArray[np.bool_]:
        """The inputs that are compared: of a true-positive rate those of the class."""
        if self.kind != "true_positive_rate" or labels is None:
            return np.ones(count, bool)
        return np.asarray(labels == (1 if self.classes is None else self.target))

    def _predicted(self, outputs: Any) -> Any:
        return (outputs > 0).astype(jnp.int32) if self.classes is None else outputs.argmax(axis=1)


def metric_of(
    metric: Any, target: int | None, network: Network, inputs: npt.NDArray[Any], labels: npt.NDArray[Any] | None
) -> Metric:
    """The metric of a call, checked against what the network gives.

    Raises `BadArgument` for an unknown one, outputs or a metric's values of another shape, a target that is missing or
    not there, and missing labels.
    """
    outputs = _outputs(network, inputs)
    count = len(inputs)
    shape = tuple(outputs.shape[1:])
    whole = labels is not None and labels.shape == (count,) and labels.dtype.kind in "iub"
    form: dict[str, Any] = {"classes": shape[0] if shape else None, "judged": bool(whole and len(shape) < 2)}
    if not isinstance(metric, str):
        pair = metric if isinstance(metric, tuple) else (metric, metric)
        if len(pair) != 2 or not all(map(callable, pair)):
            raise BadArgument(f"metric is {metric!r}; expected one of {', '.join(KINDS)}, or a function of outputs")
        named = getattr(pair[1], "__name__", "metric")
        found = Metric(named, None, pair, **form)
        for which, function in enumerate(pair):
            _check_values(which, function, outputs, labels)
        return found
    if metric not in KINDS:
        raise BadArgument(f"metric {metric!r}; expected one of {', '.join(KINDS)}, or a function of outputs and labels")
    if len(shape) > 1:
        raise BadArgument(f"outputs of an input have shape {shape}; {metric} needs one number or one axis of classes")
    if shape and target is None:
        raise BadArgument(f"target is None; an input has {shape[0]} outputs, give the class to compare")
    if shape and not 0 <= int(target or 0) < shape[0]:
        raise BadArgument(f"target is {target}; the network has {shape[0]} outputs, give 0 to {shape[0] - 1}")
    if not shape and target is not None:
        raise BadArgument(f"target is {target}; the network gives one number an input, leave target out")
    if metric == "true_positive_rate" and not whole:
        raise BadArgument("true_positive_rate needs labels, one class for each input")
    return Metric(metric, target, **form)


def _outputs(network: Network, inputs: npt.NDArray[Any]) -> Any:
    try:
        out = jax.eval_shape(network.apply, network.params, network.fixed, abstract(inputs.shape, inputs.dtype))
    except Exception as error:
        said = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise BadArgument(f"function fails on inputs of shape {inputs.shape}: {said}") from error
    shape = getattr(out, "shape", None)
    if shape is None or shape[:1] != (len(inputs),):
        got = f"shape {shape}" if shape is not None else f"a {type(out).__name__}"
        raise BadArgument(f"function gives {got} for {len(inputs)} inputs; expected one array ({len(inputs)}, ...)")
    return out


def _check_values(which: int, function: PerInput, outputs: Any, labels: npt.NDArray[Any] | None) -> None:
    held = None if labels is None else abstract(labels.shape, labels.dtype)
    try:
        found = jax.eval_shape(function, outputs, held)
    except Exception as error:
        said = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise BadArgument(f"metric fails on outputs of shape {outputs.shape}: {said}") from error
    shape = getattr(found, "shape", None)
    if which == 0 and shape == outputs.shape[:1] and not jnp.issubdtype(found.dtype, jnp.floating):
        raise BadArgument(f"metric gives {found.dtype}, which has no gradient; give a pair, one with floats, then this")
    if shape != outputs.shape[:1]:
        got = f"shape {shape}" if shape is not None else f"a {type(found).__name__}"
        raise BadArgument(f"metric gives {got} for {outputs.shape[0]} inputs; expected one number for each")
