"""What the plots of a report share: HoloViews with bokeh, and axes in the colours of a theme."""

from collections.abc import Callable
from typing import Any

from weighbridge.views.colours import Colours, Theme, colours

WIDTH = 900


def load() -> Any:
    """HoloViews with its bokeh backend registered; nothing is shown and no backend is chosen for the caller."""
    import holoviews
    import holoviews.plotting.bokeh

    return holoviews


def framed(
    element: Any, title: str, *, theme: Theme, width: int | None = WIDTH, height: int | None, **options: Any
) -> Any:
    """The element with a title and a size, its axes, legend and colour bar in the colours of a theme.

    The size is that of all, or none where `options` give that of the frame.
    """
    verbatim = title.replace("{", "{{").replace("}", "}}")  # HoloViews formats titles
    return element.opts(
        title=verbatim, width=width, height=height, hooks=[_painter(colours(theme))], backend="bokeh", **options
    )


def number(value: float) -> str:
    """A number to four digits, with a proper minus."""
    return f"{value:.4g}".replace("-", "−")


def _painter(c: Colours) -> Callable[[Any, Any], None]:
    """A hook that paints everything around the data."""

    def paint(plot: Any, element: Any) -> None:
        figure = plot.state
        figure.update(background_fill_color=c.background, border_fill_color=c.background, outline_line_color=None)
        figure.title.update(text_color=c.text, text_font_size="11pt", text_font_style="normal")
        figure.grid.grid_line_color = None
        figure.toolbar.logo = None
        if figure.width is None:
            figure.sizing_mode = None  # bokeh wants no mode where only the frame has a size
        for axis in figure.axis:
            _paint_axis(axis, c)
        for legend in figure.legend:
            legend.update(background_fill_color=c.background, border_line_color=None, label_text_color=c.text)
            legend.update(label_text_font_size="9pt", padding=2, margin=2)
        for bar in figure.select({"type": _color_bar()}):
            bar.update(background_fill_color=c.background, major_label_text_color=c.muted, title_text_color=c.text)

    return paint


def _paint_axis(axis: Any, c: Colours) -> None:
    axis.update(axis_label_text_color=c.text, axis_label_text_font_style="normal", axis_label_text_font_size="10pt")
    axis.update(major_label_text_color=c.muted, major_label_text_font_size="9pt")
    axis.update(axis_line_color=c.muted, major_tick_line_color=c.muted, minor_tick_line_color=None)


def _color_bar() -> Any:
    from bokeh.models.annotations import ColorBar

    return ColorBar
