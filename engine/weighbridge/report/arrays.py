"""Dense results: zarr groups beside the tables of a report, each written whole and renamed into its place."""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from weighbridge.errors import ReportError

Array = npt.NDArray[Any]


def write(target: Path, arrays: Mapping[str, Array], attributes: Mapping[str, Any]) -> None:
    """Writes a group beside its place, then renames it into it. Raises `ReportError`."""
    import zarr

    hidden = target.with_name(f".{target.stem}.{os.getpid()}")
    try:
        group = zarr.open_group(hidden, mode="w", zarr_format=3, attributes=dict(attributes))
        for name, values in arrays.items():
            group.create_array(name, data=values)
        shutil.rmtree(target, ignore_errors=True)
        hidden.replace(target)
    except OSError as error:
        shutil.rmtree(hidden, ignore_errors=True)
        raise ReportError(f"{target}: cannot be written: {error}; free space or choose another --report") from error


def read(target: Path, again: str) -> tuple[dict[str, Array], dict[str, Any]]:
    """Arrays and attributes of a group. Raises `ReportError` where they are gone, saying what makes them `again`."""
    import zarr

    try:
        group = zarr.open_group(target, mode="r", zarr_format=3)
        return {name: np.asarray(array[...]) for name, array in group.arrays()}, dict(group.attrs)
    except Exception as error:  # whatever a codec raises
        raise ReportError(f"{target}: cannot be read: {error}; {again}") from error


def gone(target: Path, again: str) -> ReportError:
    """The error of a group that is not there."""
    return ReportError(f"{target}: is not there; {again}")
