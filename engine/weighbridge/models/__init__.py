"""What needs a network that runs. Imported only where asked for: JAX, and for some parts flax and optax."""
