"""A sheet of small pictures in rows and columns: signed ones that share one scale, and coloured ones. Numbers alone.

What is drawn in a page (`sheet_element`) and in a file (`sheet_file`) is laid out here.
"""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from weighbridge.errors import BadArgument
from weighbridge.views.colours import Theme

FloatArray = npt.NDArray[np.float32]

SIDE = 1600
"""Pixels that a sheet's longer side may take; its tiles shrink to fit."""
_LEAST, _MOST = 8, 160
"""Pixels of a tile's side."""
_SHOWN = 24
"""Pixels that a tile takes at least where there is room, so that gaps are thin beside it."""
_GAP = 1 / 12
"""Of a tile's side, between tiles."""
_CAPTION = 1 / 6
"""Of a tile's side, for the line under it,"""
_LINE = 1 / 40
"""and of the side of all tiles at most, for its letters do not grow with them."""
_UNDER = 1 / 60
"""Of a tile's side, between it and its caption."""
_QUANTILE = 0.995
"""Magnitudes beyond it do not stretch the scale."""


class Tile(NamedTuple):
    """A picture at a row and a column: [h, w] on the sheet's scale, or [h, w, 3] in [0, 1] as it is.

    The caption stands under it; what it `says` shows on hovering.
    """

    row: int
    col: int
    picture: npt.NDArray[np.floating]
    caption: str = ""
    says: str = ""


class Box(NamedTuple):
    """Pixels of a sheet that a tile fills, from the top left."""

    top: int
    left: int
    height: int
    width: int


@dataclass(frozen=True)
class Sheet:
    """Tiles with a title, names of rows and columns where they have any, and a limit of the common scale.

    The limit is by default the 0.995 quantile of the magnitudes of all signed pictures together, 1 where they are
    zero. A notebook shows a sheet as a PNG. Raises `BadArgument` for a picture that is neither signed nor coloured.
    """

    tiles: tuple[Tile, ...]
    title: str = ""
    row_names: tuple[str, ...] = ()
    col_names: tuple[str, ...] = ()
    given_limit: float | None = None

    def __post_init__(self) -> None:
        for tile in self.tiles:
            shape = tile.picture.shape
            if not (len(shape) == 2 or (len(shape) == 3 and shape[2] == 3)) or 0 in shape:
                raise BadArgument(f"a picture of shape {shape}; expected [h, w] or, in colours, [h, w, 3]")
        if self.given_limit is not None and not 0 < self.given_limit < np.inf:
            raise BadArgument(f"limit {self.given_limit!r}; expected a positive number")

    def element(self, *, theme: Theme = "light") -> Any:
        """As HoloViews elements; see `sheet_element.drawn`."""
        from weighbridge.views.sheet_element import drawn

        return drawn(self, theme=theme)

    def save(self, file: str | os.PathLike[str], *, theme: Theme = "light") -> None:
        """As a file; see `sheet_file.save`."""
        from weighbridge.views.sheet_file import save

        save(self, file, theme=theme)

    def _repr_png_(self) -> bytes:
        from weighbridge.views.sheet_file import picture

        return picture(self)

    @cached_property
    def signed(self) -> tuple[Tile, ...]:
        return tuple(tile for tile in self.tiles if tile.picture.ndim == 2)

    @cached_property
    def limit(self) -> float:
        """Where the common scale ends, on either side of 0."""
        if self.given_limit is not None:
            return self.given_limit
        magnitudes = np.abs(np.concatenate([np.zeros(0), *(tile.picture.ravel() for tile in self.signed)]))
        known = magnitudes[np.isfinite(magnitudes)]
        return (float(np.quantile(known, _QUANTILE)) or float(known.max())) or 1.0 if known.size else 1.0

    @cached_property
    def rows(self) -> int:
        return max((tile.row for tile in self.tiles), default=0) + 1

    @cached_property
    def cols(self) -> int:
        return max((tile.col for tile in self.tiles), default=0) + 1

    @cached_property
    def captioned(self) -> bool:
        return any(tile.caption for tile in self.tiles)

    @cached_property
    def side(self) -> int:
        """Pixels of a tile's side: those of the largest picture, but a few at least and what fits at most."""
        largest = max((max(tile.picture.shape[:2]) for tile in self.tiles), default=1)
        fits = int(SIDE / max(self.rows, self.cols))
        return max(min(max(largest, _SHOWN), fits, _MOST), _LEAST)

    @cached_property
    def pitch(self) -> tuple[int, int]:
        """Pixels from one row to the next, and from one column to the next."""
        gap = max(1, round(self.side * _GAP))
        line = min(_CAPTION, _LINE * max(self.rows, self.cols)) * self.side
        return self.side + gap + (max(4, round(line)) if self.captioned else 0), self.side + gap

    @cached_property
    def shape(self) -> tuple[int, int]:
        return self.rows * self.pitch[0], self.cols * self.pitch[1]

    def box(self, tile: Tile) -> Box:
        """Where a tile lies: its longer side fills the place, the shorter is centred."""
        height, width = tile.picture.shape[:2]
        longest = max(height, width)
        down, across = max(1, round(self.side * height / longest)), max(1, round(self.side * width / longest))
        top, left = tile.row * self.pitch[0], tile.col * self.pitch[1]
        return Box(top + (self.side - down) // 2, left + (self.side - across) // 2, down, across)

    def caption_top(self, tile: Tile) -> float:
        """Pixels from the top to where a tile's caption begins."""
        return tile.row * self.pitch[0] + self.side * (1 + _UNDER)

    def values(self) -> FloatArray:
        """The signed pictures, NaN elsewhere."""
        sheet = np.full(self.shape, np.nan, np.float32)
        for tile in self.signed:
            _laid(sheet, self.box(tile), tile.picture)
        return sheet

    def colours(self) -> FloatArray:
        """The coloured pictures with an opacity of 1; 0 elsewhere."""
        sheet = np.zeros((*self.shape, 4), np.float32)
        for tile in self.tiles:
            if tile.picture.ndim == 3:
                opaque = np.concatenate([np.clip(tile.picture, 0, 1), np.ones((*tile.picture.shape[:2], 1))], axis=2)
                _laid(sheet, self.box(tile), opaque)
        return sheet


def arranged(
    pictures: Iterable[npt.NDArray[np.floating]], *, cols: int | None = None, captions: Iterable[str] = ()
) -> tuple[Tile, ...]:
    """Pictures row by row, by default in about a square."""
    found, under = list(pictures), list(captions)
    across = cols or max(1, int(np.ceil(np.sqrt(len(found)))))
    texts = under or [""] * len(found)
    return tuple(
        Tile(*divmod(i, across), picture, text, text)
        for i, (picture, text) in enumerate(zip(found, texts, strict=True))
    )


def _laid(sheet: FloatArray, box: Box, picture: npt.NDArray[np.floating]) -> None:
    into = sheet[box.top : box.top + box.height, box.left : box.left + box.width]
    into[:] = resized(picture, box.height, box.width)


def resized(picture: npt.NDArray[np.floating], height: int, width: int) -> npt.NDArray[np.floating]:
    """The picture [h, w, ...] at another size: repeated pixels where it grows, their means where it shrinks."""
    return _along(np.moveaxis(_along(picture, height), 1, 0), width).swapaxes(0, 1)


def _along(picture: npt.NDArray[np.floating], size: int) -> npt.NDArray[np.floating]:
    length = len(picture)
    if size >= length:
        return picture[(np.arange(size) * length) // size]
    edges = np.linspace(0, length, size + 1)
    cells = np.arange(length)
    overlap = np.minimum(edges[1:, None], cells + 1) - np.maximum(edges[:-1, None], cells)
    shares = np.maximum(overlap, 0) * size / length
    means: npt.NDArray[np.floating] = np.tensordot(shares, picture, axes=1)
    return means
