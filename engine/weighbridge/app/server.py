"""Serving the page: on this machine, under an address that nobody guesses, until it is interrupted."""

import asyncio
import contextlib
import secrets
import signal
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from weighbridge.app.model import Model
from weighbridge.errors import BadArgument
from weighbridge.pyramid.cache import DEFAULT_LIMIT, PyramidCache
from weighbridge_kernels.variants import Device

_KEEP_UNUSED_MS = 15_000
_CHECK_UNUSED_MS = 5_000


def view(
    source: Any,
    *,
    port: int = 0,
    address: str = "127.0.0.1",
    browser: bool = True,
    cache: int = DEFAULT_LIMIT,
    cache_folder: Path | None = None,
    device: Device = "auto",
    told: Callable[[str], None] = print,
) -> None:
    """Serves a page on a model until interrupted; its address, with the token that opens it, goes to `told`.

    `source` is a report, its folder, or whatever `weighbridge.open` takes, which is weighed while the page is shown
    unless it has been. `cache` bounds what pyramids take on disk, in bytes. The page binds `address` alone and answers
    nothing outside of its token's path. Raises what opening the source raises, and `BadArgument` where the port cannot
    be had.
    """
    model = Model.open(source, PyramidCache(cache_folder, limit=cache, device=device))
    server = serve(model, port=port, address=address)
    told(server.address_of_page)
    if browser:
        _open_browser(server.address_of_page)
    with contextlib.suppress(KeyboardInterrupt):
        server.run()


class PageServer:
    """A Bokeh server with one page on a model."""

    def __init__(self, server: Any, host: str, token: str) -> None:
        self._server = server
        self.address_of_page = f"http://{host}:{server.port}/{token}/"

    def run(self) -> None:
        """Serves until interrupted or stopped."""
        asyncio.set_event_loop(self._server.io_loop.asyncio_loop)
        self._server.start()
        try:
            self._server.io_loop.start()
        finally:
            self.close()

    def close(self) -> None:
        """Gives the port and every connection back; of a server that runs `stop` does."""
        self._server.stop()
        self._server.io_loop.close(all_fds=True)

    def stop(self) -> None:
        """Ends `run`, from whatever thread."""
        self._server.io_loop.add_callback(self._server.io_loop.stop)


def serve(model: Model, *, port: int = 0, address: str = "127.0.0.1") -> PageServer:
    """A server that is bound but does not answer before `run`. Raises `BadArgument` where the port cannot be had."""
    import panel
    from tornado.ioloop import IOLoop
    from tornado.web import StaticFileHandler

    from weighbridge.app.page import page

    token = secrets.token_urlsafe(24)
    bound = _port(address, port)
    names = _names(address)
    interrupt = signal.getsignal(signal.SIGINT)
    try:
        server = panel.io.server.get_server(
            {"": lambda: page(model)},
            port=bound,
            address=address,
            loop=IOLoop(make_current=False),
            prefix=f"/{token}",
            websocket_origin=[f"{name}:{bound}" for name in names],
            title={"": model.name},
            ico_path="none",
            extra_patterns=[(r"/(favicon\.ico)", StaticFileHandler, {"path": str(Path(__file__).parent)})],
            show=False,
            start=False,
            check_unused_sessions_milliseconds=_CHECK_UNUSED_MS,
            unused_session_lifetime_milliseconds=_KEEP_UNUSED_MS,
        )
    except OSError as error:
        raise BadArgument(f"{address}:{bound}: cannot be bound: {error.strerror}; choose another --port") from error
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, interrupt)  # panel takes it for itself
    threading.Thread(target=warm, daemon=True, name="warm").start()
    return PageServer(server, names[0], token)


def _names(address: str) -> list[str]:
    """What the machine is called in addresses of the page; the sockets of other hosts' pages are refused."""
    if address == "127.0.0.1":
        return [address, "localhost"]
    if address != "0.0.0.0":
        return [address]
    host = socket.gethostname()
    with contextlib.suppress(OSError):
        return [host, socket.getfqdn(), *socket.gethostbyname_ex(host)[2], "127.0.0.1", "localhost"]
    return [host, "127.0.0.1", "localhost"]


def _port(address: str, port: int) -> int:
    """The port, or a free one for 0. Raises `BadArgument` where it cannot be had."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except (OSError, OverflowError) as error:
            raise BadArgument(
                f"{address}:{port}: cannot be bound: {error}; choose another --port or --address"
            ) from error
        return int(probe.getsockname()[1])


def warm() -> None:
    """Compiles what the first picture would wait for: datashader's rasters and the block reductions."""
    import numpy as np
    import zarr  # noqa: F401  its import takes a second

    from weighbridge.views.window import rasterised
    from weighbridge_kernels import variants

    for dtype in (np.float32, np.float64):
        for how in ("min", "max", "mean"):
            rasterised(np.zeros((4, 4), dtype), how, factors=(2, 2))
    table = np.zeros(1 << 16, np.float32)
    variants.select("cpu").block_reductions(np.zeros((8, 8), np.uint16), table)
    variants.select("cpu").block_reductions(np.zeros((8, 8), np.float32))


def _open_browser(address: str) -> None:
    """Only where there is a screen; a terminal without one has the address."""
    import os
    import sys
    import webbrowser

    if sys.platform in ("darwin", "win32") or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"):
        webbrowser.open(address)
