"""Saliency maps and the inputs that they are of: rows of the table `saliency` and a zarr group of a report."""

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from blake3 import blake3

from weighbridge.errors import BadArgument, ReportError
from weighbridge.report.manifest import Analysis, begun
from weighbridge.report.schema import TABLES
from weighbridge.report.tables import TableWriter, drop_parts

TABLE = "saliency"
_STORED = ("values", "target", "output", "baseline_output", "completeness_gap", "steps", "converged")

FloatArray = npt.NDArray[np.floating[Any]]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Saliency:
    """Values of a method for a batch of inputs, as NumPy arrays.

    `values` has the inputs' shape; Grad-CAM's has the layer's, without its channels. `target` is (batch, axes of one
    output), `output` the chosen output of each input and `baseline_output` that of its baseline, NaN for methods that
    have none. `completeness_gap` is |sum of values - (output - baseline output)|, NaN for all but integrated gradients.
    `steps` is how often the network ran for each input, and `converged` says where the gap is within 1 % of
    |output - baseline output| or 1e-4 of the larger of the two magnitudes; true for methods without a gap. `layer` is
    Grad-CAM's, empty for other methods.
    """

    values: FloatArray
    method: str
    target: IntArray
    output: FloatArray
    baseline_output: FloatArray
    completeness_gap: npt.NDArray[np.float64]
    steps: IntArray
    converged: BoolArray
    layer: str = ""

    @property
    def signed(self) -> bool:
        """Whether the method tells what speaks for the output from what speaks against: all but positive Grad-CAM."""
        return self.method != "grad_cam" or bool((self.values < 0).any())

    def save(
        self,
        report: str | os.PathLike[str],
        inputs: Any,
        *,
        captions: Sequence[str] | None = None,
        channel_axis: int = -1,
        part: str | None = None,
        name: str = "saliency",
    ) -> None:
        """Writes the maps and their `inputs` into a report, where the page and `Report.saliency` find them.

        The table `saliency` has a row for each input, called by its caption ("input 0" without); `part`, by default the
        method and its layer, tells these maps from others of the report and replaces those of the same part. The report
        may be new, then its source is called `name`, or one of the network's checkpoint or training.

        Raises `BadArgument` where inputs or captions are not as many as the maps, `ReportError` where the folder holds
        something else or cannot be written.
        """
        x = np.asarray(inputs)
        called = [f"input {i}" for i in range(len(x))] if captions is None else [str(text) for text in captions]
        if not len(self.values) == len(x) == len(called):
            raise BadArgument(f"there are {len(x)} inputs and {len(called)} captions; expected {len(self.values)}")
        key = " ".join(filter(None, (self.method, self.layer))) if part is None else part
        folder, manifest = begun(report, name)
        _write(place(folder, key), self, x, {"part": key, "channel_axis": channel_axis, "captions": called})
        drop_parts(folder / "tables" / TABLE, key)
        writer = TableWriter(folder / "tables" / TABLE, TABLES[TABLE])
        writer.add_all([self._row(i, x, called[i], key) for i in range(len(x))])
        writer.flush()
        manifest.analyses[TABLE] = Analysis({}, "jax", "complete")
        manifest.save(folder)

    def _row(self, i: int, inputs: npt.NDArray[Any], caption: str, part: str) -> dict[str, Any]:
        known = {
            column: None if np.isnan(value := getattr(self, column)[i]) else float(value)
            for column in ("output", "baseline_output", "completeness_gap")
        }
        about = {"name": caption, "part": part, "shape": list(inputs.shape[1:]), "dtype": str(inputs.dtype)}
        figures = {"target": ",".join(map(str, self.target[i])), "steps": int(self.steps[i])}
        figures |= {"method": self.method, "at": self.layer or None, "converged": bool(self.converged[i])}
        return about | known | figures | {"status": "done", "variant": "jax", "order": i}


@dataclass(frozen=True, eq=False)
class StoredSaliency:
    """Maps as a report holds them, with the inputs that they are of."""

    found: Saliency
    inputs: npt.NDArray[Any]
    captions: list[str]
    channel_axis: int


def place(folder: Path, part: str) -> Path:
    """Where the arrays of a part lie in a report's folder."""
    return folder / "arrays" / TABLE / f"{blake3(part.encode()).hexdigest()[:32]}.zarr"


def _write(target: Path, found: Saliency, inputs: npt.NDArray[Any], attributes: dict[str, Any]) -> None:
    """Writes the arrays whole beside their place, then renames them into it."""
    import zarr

    hidden = target.with_name(f".{target.stem}.{os.getpid()}")
    said = attributes | {"method": found.method, "layer": found.layer}
    try:
        group = zarr.open_group(hidden, mode="w", zarr_format=3, attributes=said)
        for name in _STORED:
            group.create_array(name, data=getattr(found, name))
        group.create_array("inputs", data=inputs)
        shutil.rmtree(target, ignore_errors=True)
        hidden.replace(target)
    except OSError as error:
        shutil.rmtree(hidden, ignore_errors=True)
        raise ReportError(f"{target}: cannot be written: {error}; free space or choose another report") from error


def load(folder: Path, part: str) -> StoredSaliency:
    """The maps of a part. Raises `ReportError` where its arrays are gone or cannot be read."""
    import zarr

    found = place(folder, part)
    try:
        group: Any = zarr.open_group(found, mode="r", zarr_format=3)
        said = dict(group.attrs)
        arrays = {name: np.asarray(group[name][...]) for name in _STORED}
        maps = Saliency(method=said["method"], layer=said["layer"], **arrays)
        return StoredSaliency(maps, np.asarray(group["inputs"][...]), said["captions"], said["channel_axis"])
    except Exception as error:  # whatever a codec raises
        raise ReportError(f"{found}: cannot be read: {error}; save the maps again") from error
