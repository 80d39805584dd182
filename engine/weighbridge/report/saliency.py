"""What saliency found, with the inputs that it is of: tables with a row an input, and zarr groups of dense values."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
from blake3 import blake3

from weighbridge.report import arrays

TABLE, CHECKS = "saliency", "saliency_checks"

Method = Literal["gradient", "input_x_gradient", "integrated_gradients", "smoothgrad", "grad_cam", "occlusion"]
METHODS: tuple[Method, ...] = get_args(Method)
Score = Literal["probability", "output"]

FloatArray = npt.NDArray[np.floating[Any]]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]
Rows = Sequence[Mapping[str, Any]]


@dataclass(frozen=True, eq=False)
class Saliency:
    """Values of a method for a batch of inputs, as NumPy arrays.

    `values` has the inputs' shape; Grad-CAM's has the layer's, without its channels. `target` is (batch, axes of one
    output), `output` the chosen output of each input and `baseline_output` that of its baseline, NaN for methods that
    have none. `completeness_gap` is |sum of values - (output - baseline output)|, NaN for all but integrated gradients.
    `steps` is how often the network ran for each input, and `converged` says where the gap is within 1 % of
    |output - baseline output| or 1e-4 of the larger of the two magnitudes; true for methods without a gap.
    `layer` is the one that Grad-CAM looks at.
    """

    values: FloatArray
    method: Method
    target: IntArray
    output: FloatArray
    baseline_output: FloatArray
    completeness_gap: npt.NDArray[np.float64]
    steps: IntArray
    converged: BoolArray
    layer: str | None = None

    @property
    def signed(self) -> bool:
        """Whether the method tells what speaks for the output from what speaks against: all but positive Grad-CAM."""
        return self.method != "grad_cam" or bool((self.values < 0).any())


@dataclass(frozen=True, eq=False)
class Randomisation:
    """How maps change as layers become random from the output down: `layers` in that order.

    `correlation` and `absolute` are Spearman's, of the maps and of their magnitudes with the trained network's, (layers
    + 1, batch); row k is for the first k layers random, so row 0 is 1. NaN where a map is constant or has a NaN. A
    method whose map keeps a high correlation does not depend on what the network has learnt.
    """

    layers: tuple[str, ...]
    correlation: FloatArray
    absolute: FloatArray
    method: str


@dataclass(frozen=True, eq=False)
class Curves:
    """Scores of the chosen output as entries go, the highest values of a map first, and as they come.

    `fraction` is (points,), from 0 to 1; `deletion` (from the input to its baseline) and `insertion` (from the baseline
    to the input) are (batch, points); the areas, (batch,), by trapezoids. A good map has a small area of deletion and a
    large one of insertion.
    """

    fraction: FloatArray
    deletion: FloatArray
    insertion: FloatArray
    deletion_area: FloatArray
    insertion_area: FloatArray
    score: Score
    method: str = ""


@dataclass(frozen=True, eq=False)
class Inputs:
    """The inputs that a report's saliency is of, with their batch first.

    `labels` name them; `entries` name the tokens or columns of each, and are empty for images and where nobody gave
    names. `channel_axis` is that of the batch.
    """

    values: FloatArray
    labels: tuple[str, ...]
    entries: tuple[tuple[str, ...], ...]
    channel_axis: int


@dataclass(frozen=True, eq=False)
class SavedSaliency:
    """A method's result as a report has it, with its inputs and what was stored of its checks."""

    part: str
    result: Saliency
    inputs: Inputs
    curves: Curves | None
    randomisation: Randomisation | None


def part_of(method: str, layer: str | None) -> str:
    """What tells a method's rows from those of others: its name, and the layer that Grad-CAM looks at."""
    return f"{method} {layer}" if layer else method


def storable(values: Any) -> npt.NDArray[Any]:
    """An array that zarr has a dtype for: bfloat16 and the narrower types of ml_dtypes become float32, which is exact.

    A NumPy dtype is 2 of `isbuiltin` where a package has registered it.
    """
    found = np.asarray(values)
    return found.astype(np.float32) if found.dtype.isbuiltin == 2 else found


def save_inputs(folder: Path, inputs: Inputs) -> None:
    """Writes the inputs of a report's saliency. Raises `ReportError`."""
    named = {"labels": inputs.labels, "entries": inputs.entries, "channel_axis": inputs.channel_axis}
    arrays.write(_place(folder, "inputs"), {"values": storable(inputs.values)}, named)


def save_values(folder: Path, part: str, values: FloatArray) -> None:
    """Writes the values of a method. Raises `ReportError`."""
    arrays.write(_place(folder, part), {"values": storable(values)}, {"part": part})


def forget(folder: Path) -> None:
    """Takes the inputs and values of a report's saliency away."""
    shutil.rmtree(folder / "arrays" / TABLE, ignore_errors=True)


def load_inputs(folder: Path) -> Inputs | None:
    """The inputs of a report's saliency, None where it has none. Raises `ReportError` where they cannot be read."""
    place = _place(folder, "inputs")
    if not place.exists():
        return None
    found, said = arrays.read(place, _AGAIN)
    entries = tuple(tuple(names) for names in said["entries"])
    return Inputs(found["values"], tuple(said["labels"]), entries, int(said["channel_axis"]))


def load(folder: Path, part: str, rows: Rows, checks: Rows) -> SavedSaliency:
    """The result of the rows of a method, in the order of the inputs. Raises `ReportError`."""
    values = arrays.read(_place(folder, part), _AGAIN)[0]["values"]
    inputs = load_inputs(folder)
    if inputs is None:
        raise arrays.gone(_place(folder, "inputs"), _AGAIN)
    result = Saliency(
        values,
        rows[0]["method"],
        np.array([row["targets"] for row in rows], np.int64),
        _floats(rows, "output"),
        _floats(rows, "baseline_output"),
        _floats(rows, "completeness_gap"),
        np.array([row["steps"] for row in rows], np.int64),
        np.array([row["converged"] for row in rows], bool),
        rows[0]["activation"],
    )
    return SavedSaliency(part, result, inputs, _curves(checks), _randomisation(checks))


_AGAIN = "save it again with if_exists='overwrite'"


def _place(folder: Path, what: str) -> Path:
    """Where an array lies in a report's folder; names of layers are no names of files."""
    name = what if what in ("inputs", *METHODS) else blake3(what.encode()).hexdigest()[:32]
    return folder / "arrays" / TABLE / f"{name}.zarr"


def _floats(rows: Rows, column: str) -> npt.NDArray[np.float64]:
    return np.array([np.nan if row[column] is None else row[column] for row in rows], np.float64)


def _curves(checks: Rows) -> Curves | None:
    if not checks or checks[0]["deletion"] is None:
        return None
    return Curves(
        checks[0]["fraction"],
        np.stack([row["deletion"] for row in checks]),
        np.stack([row["insertion"] for row in checks]),
        _floats(checks, "deletion_area"),
        _floats(checks, "insertion_area"),
        checks[0]["score"],
        checks[0]["method"],
    )


def _randomisation(checks: Rows) -> Randomisation | None:
    if not checks or checks[0]["correlation"] is None:
        return None
    signed, absolute = (np.stack([row[name] for row in checks], axis=1) for name in ("correlation", "absolute"))
    return Randomisation(tuple(checks[0]["layers"]), signed, absolute, checks[0]["method"])
