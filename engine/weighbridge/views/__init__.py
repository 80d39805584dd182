"""Pictures of weights and of reports: HoloViews elements, for a notebook and for the page. One picture a file."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from weighbridge.views.channels import channels
    from weighbridge.views.distribution import distribution
    from weighbridge.views.findings import findings
    from weighbridge.views.heatmap import heatmap
    from weighbridge.views.overview import model_map, overview, ridge
    from weighbridge.views.snapshot import snapshot

_HOMES = {
    "channels": ("channels",),
    "distribution": ("distribution",),
    "findings": ("findings",),
    "heatmap": ("heatmap",),
    "overview": ("model_map", "overview", "ridge"),
    "snapshot": ("snapshot",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = ["channels", "distribution", "findings", "heatmap", "model_map", "overview", "ridge", "snapshot"]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'weighbridge.views' has no attribute {name!r}")
    return getattr(import_module(f"weighbridge.views.{_HOME_OF[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
