"""A model in a few figures: parameters, bytes, entropy, what is not finite."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from weighbridge.checkpoints.dtypes import SAFETENSORS
from weighbridge_kernels import formats

if TYPE_CHECKING:
    import pandas as pd

_QUANTISED_ROLES = ("codes", "scales")


@dataclass(frozen=True)
class Summary:
    """Figures over all tensors of a table `scan`.

    `parameters` counts floating entries that are no codes or scales of a quantised tensor. `entropy` is the mean
    Shannon entropy of a weight in bits over the tensors of 16 bits or fewer (None without any); `exponent_saving` is
    the share of the floating tensors' bytes that storing exponents at their entropy, signs and mantissas as they are,
    would save.
    """

    tensors: int
    parameters: int
    quantised: int
    nbytes: int
    bytes_by_dtype: dict[str, int] = field(default_factory=dict)
    entropy: float | None = None
    exponent_saving: float | None = None
    nan: int = 0
    inf: int = 0
    failed: int = 0


def summarize(rows: "pd.DataFrame") -> Summary:
    """The summary of a table `scan`; rows that failed count as tensors but not in the figures."""
    done = rows[rows["status"] == "done"]
    floating = done[
        done["dtype"].map(lambda name: name in SAFETENSORS and SAFETENSORS[name].kind == "float").astype(bool)
    ]
    quantised = done["role"].isin(_QUANTISED_ROLES)
    by_dtype = done.groupby("dtype")["nbytes"].sum().sort_values(ascending=False)
    weights = floating[~floating["role"].isin(_QUANTISED_ROLES)]
    return Summary(
        tensors=len(rows),
        parameters=int(weights["count"].sum()),
        quantised=int(done.loc[quantised, "count"].sum()),
        nbytes=int(done["nbytes"].sum()),
        bytes_by_dtype={str(name): int(size) for name, size in by_dtype.items()},
        entropy=_mean_entropy(weights),
        exponent_saving=_exponent_saving(weights),
        nan=int(done["nan"].sum()),
        inf=int(done["posinf"].sum() + done["neginf"].sum()),
        failed=len(rows) - len(done),
    )


def _mean_entropy(weights: "pd.DataFrame") -> float | None:
    counted = weights[weights["entropy"].notna() & weights["dtype"].map(lambda name: SAFETENSORS[name].bits <= 16)]
    total = int(counted["count"].sum())
    return float((counted["entropy"] * counted["count"].astype(float)).sum()) / total if total else None


def _exponent_saving(weights: "pd.DataFrame") -> float | None:
    """(exponent bits - their entropy) over all bits, weighted by entries; float64, counted as float32, is left out."""
    counted = weights[weights["exponent_entropy"].notna() & (weights["dtype"] != "F64")]
    if counted.empty:
        return None
    entries = counted["count"].astype(float)
    exponent_bits = counted["dtype"].map(_exponent_bits)
    saved = ((exponent_bits - counted["exponent_entropy"]) * entries).sum()
    return float(saved / (counted["dtype"].map(lambda name: SAFETENSORS[name].bits) * entries).sum())


def _exponent_bits(dtype: str) -> int:
    if dtype == "F8_E8M0":
        return 8
    return 8 if dtype == "F32" else formats.FLOAT_FORMATS[dtype].exponent
