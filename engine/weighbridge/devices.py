"""Where the kernels run: the device that was asked for, and a place on disk for what is compiled for it."""

from pathlib import Path

from weighbridge.errors import BadArgument
from weighbridge_kernels import variants
from weighbridge_kernels.variants import Device, Variant


def select(device: Device) -> Variant:
    """The forms of the kernels for a device; JAX's compilations are kept in the user's cache folder.

    Raises `BadArgument` where the device is not there.
    """
    try:
        variant = variants.select(device)
    except variants.DeviceUnavailable as error:
        raise BadArgument(f"{error}; use --device cpu") from error
    if variant.name.startswith("jax"):
        _keep_compilations()
    return variant


def _keep_compilations() -> None:
    """Unless the user has chosen a folder; it holds executable code, so it is the user's alone."""
    import jax
    import platformdirs

    if jax.config.jax_compilation_cache_dir is None:  # type: ignore[attr-defined]
        folder = Path(platformdirs.user_cache_dir("weighbridge")) / "compiled"
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError:  # a cache is a convenience
            return
        settings = {
            "jax_compilation_cache_dir": str(folder),
            "jax_persistent_cache_min_compile_time_secs": 0.0,
            "jax_persistent_cache_min_entry_size_bytes": -1,
        }
        for name, value in settings.items():
            jax.config.update(name, value)  # type: ignore[no-untyped-call]
