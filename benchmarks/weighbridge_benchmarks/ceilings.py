"""What the machine can do at best, measured in the same run: bytes read, bytes copied, products a second."""

import os
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np


def best(work: Callable[[], Any], tries: int = 5) -> float:
    """Least wall time of several tries, in seconds."""
    times = []
    for _ in range(tries):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return min(times)


def host_read(threads: int = 2, nbytes: int = 1 << 30) -> float:
    """Bytes a second that some threads read from memory: each takes the maximum of its part of an array."""
    parts = np.array_split(np.ones(nbytes // 8, np.uint64), threads)

    def read() -> None:
        workers = [threading.Thread(target=part.max) for part in parts]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()

    return nbytes / best(read)


def device_copy(nbytes: int | None = None) -> float:
    """Bytes a second of a copy in the memory of JAX's default device, read and written: 2 N over its time."""
    import jax
    import jax.numpy as jnp

    nbytes = nbytes or (1 << 28 if jax.default_backend() == "cpu" else 1 << 32)
    source = jnp.ones(nbytes // 4, jnp.uint32)
    copy = jax.jit(lambda x: x ^ jnp.uint32(1))
    copy(source).block_until_ready()
    return 2 * nbytes / best(lambda: copy(source).block_until_ready())


def host_to_device(nbytes: int = 1 << 28) -> float:
    """Bytes a second of `jax.device_put` from ordinary host memory."""
    import jax

    source = np.ones(nbytes, np.uint8)
    device = jax.devices()[0]
    jax.device_put(source, device).block_until_ready()
    return nbytes / best(lambda: jax.device_put(source, device).block_until_ready())


def matrix_product(side: int | None = None) -> float:
    """Floating-point operations a second of a float32 product at the highest precision."""
    import jax
    import jax.numpy as jnp

    side = side or (1024 if jax.default_backend() == "cpu" else 8192)
    a = jnp.ones((side, side), jnp.float32)
    product = jax.jit(lambda x: jnp.dot(x, x, precision=jax.lax.Precision.HIGHEST, preferred_element_type=jnp.float32))
    product(a).block_until_ready()
    return 2.0 * side**3 / best(lambda: product(a).block_until_ready())


def all_ceilings() -> dict[str, float]:
    """Every ceiling, by name; bytes a second but for the product."""
    found = {"host_read": host_read(min(2, os.cpu_count() or 1))}
    try:
        import jax
    except ImportError:
        return found
    found |= {"device_copy": device_copy(), "matrix_product": matrix_product()}
    if jax.default_backend() != "cpu":
        found["host_to_device"] = host_to_device()
    return found
