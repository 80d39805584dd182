"""Pictures as parts of the page."""

from typing import Any

import holoviews
import panel


def side_by_side(picture: Any) -> Any:
    """The pictures of a layout next to each other, or the only one, as wide as there is room.

    A pane each: of one pane for a layout bokeh may leave pictures of a fixed width empty.
    """
    pictures = list(picture) if isinstance(picture, holoviews.Layout) else [picture]
    panes = [panel.pane.HoloViews(each, sizing_mode="stretch_width", linked_axes=False) for each in pictures]
    return panel.GridBox(*panes, ncols=min(len(panes), 2), sizing_mode="stretch_width")
