"""The inputs of two groups, as one array with a label each, and their split into three parts."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from weighbridge.errors import BadArgument

Split = Literal["attribution", "validation", "held_out"]
SPLITS: tuple[Split, ...] = get_args(Split)
SHARES = (0.5, 0.2, 0.3)
_LOG = logging.getLogger("weighbridge")

IntArray = npt.NDArray[np.int64]
Rows = tuple[IntArray, IntArray]
"""Of the first group and of the second; of pairs, in the same order."""


@dataclass(frozen=True, eq=False)
class Examples:
    """All inputs, the first group's before the second's, which begin at `second`; `notes` say what is missing.

    `places` are theirs among those that each group gave.
    """

    names: tuple[str, str]
    inputs: npt.NDArray[Any]
    labels: npt.NDArray[Any] | None
    second: int
    paired: bool
    notes: tuple[str, ...]
    places: Rows

    @property
    def sizes(self) -> tuple[int, int]:
        return self.second, len(self.inputs) - self.second


def read(groups: Mapping[str, Any], labels: Mapping[str, Any] | None, *, paired: bool, count: int | None) -> Examples:
    """The two groups of a call; see `bias`. Raises `BadArgument` for what is no two groups that fit each other."""
    if not isinstance(groups, Mapping) or len(groups) != 2:
        raise BadArgument(f"groups is {_told(groups)}; expected a mapping of two names to inputs")
    names = str(next(iter(groups))), str([*groups][1])
    given = labels if labels is not None else {}
    if set(given) - set(groups):
        raise BadArgument(f"labels are of {sorted(set(given) - set(groups))[0]!r}; expected {names[0]!r}, {names[1]!r}")
    read = [_group(name, groups[name], given.get(name), count) for name in groups]
    notes = [note for _, _, note in read if note]
    inputs, known = [x for x, _, _ in read], [y for _, y, _ in read]
    if inputs[0].shape[1:] != inputs[1].shape[1:]:
        raise BadArgument(
            f"group {names[1]!r}: inputs of shape {inputs[1].shape[1:]}; expected {inputs[0].shape[1:]}, as those of "
            f"{names[0]!r}"
        )
    if (known[0] is None) != (known[1] is None):
        without = names[known[1] is None]
        raise BadArgument(f"group {without!r} has no labels, the other has; give labels of both, or of none")
    if paired and len(inputs[0]) != len(inputs[1]):
        if not notes:
            raise BadArgument(
                f"pairs of {len(inputs[0])} and {len(inputs[1])} inputs; expected the same number, in the same order"
            )
        whole = min(map(len, inputs))
        inputs, known = [x[:whole] for x in inputs], [y if y is None else y[:whole] for y in known]
    kept = _finite(inputs, paired)
    dropped = sum(len(x) - len(k) for x, k in zip(inputs, kept, strict=True))
    inputs = [x[k] for x, k in zip(inputs, kept, strict=True)]
    known = [y if y is None else y[k] for y, k in zip(known, kept, strict=True)]
    notes += [f"{dropped} inputs with NaN or infinities are left out"] if dropped else []
    for note in notes:
        _LOG.warning("bias: %s", note)
    joined = None if known[0] is None else np.concatenate([y for y in known if y is not None])
    return Examples(names, np.concatenate(inputs), joined, len(inputs[0]), paired, tuple(notes), kept)


def _told(given: Any) -> str:
    return f"{len(given)} groups" if isinstance(given, Mapping) else f"a {type(given).__name__}"


def _group(name: str, given: Any, labels: Any, count: int | None) -> tuple[Any, Any, str]:
    """Inputs and labels of a group, and a note where its batches end early."""
    note = ""
    if hasattr(given, "shape"):
        inputs, known = np.asarray(given), None if labels is None else np.asarray(labels)
    else:
        inputs, known, note = _batches(name, given, count)
        known = known if labels is None else np.asarray(labels)[: len(inputs)]
    if not inputs.ndim or not len(inputs):
        raise BadArgument(f"group {name!r} has no inputs; expected an array with the inputs along its first axis")
    if known is not None and known.shape[:1] != inputs.shape[:1]:
        raise BadArgument(
            f"group {name!r}: labels of shape {known.shape}; expected one of each of {len(inputs)} inputs"
        )
    return inputs, known, note


def _batches(name: str, given: Any, count: int | None) -> tuple[Any, Any, str]:
    """What batches hold until they end, fail, no longer fit or are enough."""
    taken: list[tuple[Any, Any]] = []
    why = ""
    try:
        for batch in given:
            x, y = batch if isinstance(batch, tuple | list) else (batch, None)
            x, y = np.asarray(x), None if y is None else np.asarray(y)
            if not x.ndim:
                raise ValueError("a batch is one number")
            if taken and (x.shape[1:] != taken[0][0].shape[1:] or (y is None) != (taken[0][1] is None)):
                raise ValueError(f"a batch of shape {x.shape} after {taken[0][0].shape}")
            if y is not None and y.shape[:1] != x.shape[:1]:
                raise ValueError(f"a batch of {len(x)} inputs and labels of shape {y.shape}")
            taken.append((x, y))
            if count is not None and sum(len(x) for x, _ in taken) >= count:
                break
    except Exception as error:
        why = (str(error).strip() or type(error).__name__).splitlines()[0]
    if not taken:
        raise BadArgument(f"group {name!r} gives no batch{f' ({why})' if why else ''}; expected arrays, or batches")
    inputs = np.concatenate([x for x, _ in taken])[:count]
    labels = None if taken[0][1] is None else np.concatenate([y for _, y in taken])[:count]
    if why or (count is not None and len(inputs) < count):
        wanted = f" of {count}" if count is not None else ""
        return inputs, labels, f"group {name!r} ended after {len(inputs)}{wanted} inputs{f': {why}' if why else ''}"
    return inputs, labels, ""


def _finite(inputs: list[Any], paired: bool) -> Rows:
    """Places of each group's inputs that hold no NaN or infinity; of pairs those where neither does."""
    whole = [np.ones(len(x), bool) for x in inputs]
    if inputs[0].dtype.kind not in "biu":
        wide = [x if x.dtype.kind in "fc" else x.astype(np.float32) for x in inputs]  # bfloat16 is of no NumPy kind
        whole = [np.isfinite(x).all(axis=tuple(range(1, x.ndim))) for x in wide]
    if paired:
        whole = [whole[0] & whole[1]] * 2
    return np.flatnonzero(whole[0]), np.flatnonzero(whole[1])


def split(examples: Examples, splits: Sequence[float] | Mapping[str, Any], key: int) -> dict[Split, Rows]:
    """Rows of each part: in shares, drawn with a key, group by group or pair by pair; or as given by name.

    Given ones are for each group an array of 0, 1, 2, or -1 for inputs of no part, with an entry for each input that
    the group was to give, those that are left out or did not come among them. Raises `BadArgument`.
    """
    if isinstance(splits, Mapping):
        return _given(examples, splits)
    shares = np.asarray(splits, np.float64)
    if shares.shape != (3,) or not (shares > 0).all() or shares.sum() > 1 + 1e-9:
        raise BadArgument(
            f"splits is {splits}; expected three positive shares of {', '.join(SPLITS)}, at most 1 in all"
        )
    rng = np.random.default_rng([key, 1])
    orders = [rng.permutation(size) for size in examples.sizes]
    if examples.paired:
        orders[1] = orders[0]
    starts = 0, examples.second
    found: dict[Split, Rows] = {}
    for i, name in enumerate(SPLITS):
        cuts = [np.round(np.array([shares[:i].sum(), shares[: i + 1].sum()]) * len(o)).astype(int) for o in orders]
        rows = [np.sort(o[a:b]) + at for o, (a, b), at in zip(orders, cuts, starts, strict=True)]
        found[name] = rows[0].astype(np.int64), rows[1].astype(np.int64)
    return found


def _given(examples: Examples, splits: Mapping[str, Any]) -> dict[Split, Rows]:
    marks = []
    for name, places in zip(examples.names, examples.places, strict=True):
        mark = np.asarray(splits.get(name, ()))
        size = 1 + int(places.max(initial=-1))
        fits = mark.ndim == 1 and (len(mark) == size or (examples.notes and len(mark) > size))
        if not fits or mark.dtype.kind not in "iu" or not ((mark >= -1) & (mark < 3)).all():
            raise BadArgument(f"splits of {name!r} have shape {mark.shape}; expected -1, 0, 1 or 2 for {size} inputs")
        marks.append(mark[places])
    if examples.paired and not np.array_equal(marks[0], marks[1]):
        raise BadArgument("splits part the two of a pair; expected the same for both groups")
    return {
        name: (np.flatnonzero(marks[0] == i), examples.second + np.flatnonzero(marks[1] == i))
        for i, name in enumerate(SPLITS)
    }
