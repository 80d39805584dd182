"""What a page shows, as its address says: a colleague who opens the address sees the same."""

from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any, Literal, get_args
from urllib.parse import parse_qsl

from weighbridge.pyramid.similarity import KINDS, ORDERS, SIDES, Order, Side
from weighbridge.views.colours import THEMES, Theme
from weighbridge.views.window import REDUCTIONS, Range, Reduction
from weighbridge_kernels.similar_pairs import Kind

Tab = Literal[
    "heatmap", "distribution", "channels", "spectrum", "neurons", "similarity", "projection", "circuit", "figures"
]
TABS: tuple[Tab, ...] = get_args(Tab)
_LARGEST = 1e12


@dataclass(frozen=True)
class State:
    """The view of a session; `rows` and `cols` are the heatmap's window in entries, None for all.

    `side`, `kind`, `order` and `joined` are of the similarities: whose, which, in what order, and their reduction;
    `unit` is that of the circuit. `result` is the table whose tab is shown in the place of a tensor, empty for none.
    """

    tensor: str = ""
    result: str = ""
    tab: Tab = "heatmap"
    reduction: Reduction = "absmax"
    rows: Range | None = None
    cols: Range | None = None
    widen: float = 1.0
    column: str = "std"
    theme: Theme = "light"
    side: Side = "rows"
    kind: Kind = "cosine"
    order: Order = "stored"
    joined: Reduction = "mean"
    unit: str = ""

    @classmethod
    def parse(cls, query: str, columns: Collection[str]) -> tuple["State", list[str]]:
        """The state that an address names, and a line for everything in it that makes no sense.

        `columns` are those that the map can be coloured by. What makes no sense is as if it were not there.
        """
        known: dict[str, Callable[[str], Any]] = {
            "tensor": str,
            "result": str,
            "tab": partial(_one_of, TABS),
            "reduction": partial(_one_of, REDUCTIONS),
            "theme": partial(_one_of, THEMES),
            "column": partial(_one_of, columns),
            "rows": _range,
            "cols": _range,
            "widen": _factor,
            "side": partial(_one_of, SIDES),
            "kind": partial(_one_of, KINDS),
            "order": partial(_one_of, ORDERS),
            "joined": partial(_one_of, REDUCTIONS),
            "unit": str,
        }
        state, complaints = cls(), []
        for key, text in _fields(query):
            if key not in known:
                continue
            try:
                state = replace(state, **{key: known[key](text)})
            except ValueError as error:
                complaints.append(f"{key}={text[:60]!r} in the address: {error}")
        return state, complaints

    def query(self) -> dict[str, str | None]:
        """What the address must say; None for what is as it is by default."""
        default = asdict(State())
        texts = asdict(self) | {"rows": _range_text(self.rows), "cols": _range_text(self.cols)}
        return {key: None if value in (None, default[key]) else str(value) for key, value in texts.items()}


def _fields(query: str) -> list[tuple[str, str]]:
    try:
        return parse_qsl(query.removeprefix("?"), max_num_fields=50)
    except ValueError:  # more fields than anyone means
        return []


def _one_of(known: Collection[str], text: str) -> str:
    if text not in known:
        raise ValueError(f"expected one of {', '.join(known)}")
    return text


def _range(text: str) -> Range:
    low, _, high = text.partition(":")
    try:
        found = float(low), float(high)
    except ValueError:
        raise ValueError("expected low:high") from None
    if not 0 <= found[0] < found[1] <= _LARGEST:
        raise ValueError("expected low:high, the first the smaller")
    return found


def _range_text(range_: Range | None) -> str | None:
    return range_ and f"{range_[0]:.10g}:{range_[1]:.10g}"


def _factor(text: str) -> float:
    try:
        found = float(text)
    except ValueError:
        raise ValueError("expected a number") from None
    if not 1 <= found <= 1e6:
        raise ValueError("expected 1 to 1,000,000")
    return found
