"""Pictures as parts of the page."""

from typing import Any

import holoviews
import panel


def pane(picture: Any, **options: Any) -> Any:
    """A picture of its own size, whose axes follow no other's."""
    return panel.pane.HoloViews(picture, linked_axes=False, **options)


def side_by_side(picture: Any) -> Any:
    """The pictures of a layout next to each other, or the only one, as wide as there is room.

    A pane each: of one pane for a layout bokeh may leave pictures of a fixed width empty.
    """
    pictures = list(picture) if isinstance(picture, holoviews.Layout) else [picture]
    panes = [pane(each, sizing_mode="stretch_width") for each in pictures]
    return panel.GridBox(*panes, ncols=min(len(panes), 2), sizing_mode="stretch_width")
