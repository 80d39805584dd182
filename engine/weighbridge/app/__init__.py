"""The page: a person walks a model and looks at any matrix of it. Served by Panel from this machine alone."""

from weighbridge.app.server import view

__all__ = ["view"]
