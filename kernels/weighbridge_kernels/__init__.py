"""Pure functions on arrays: the arithmetic of Weighbridge, free of files, threads and tables.

Every kernel has a plain jitted JAX form, which is its definition (`bit_histogram`, `channel_norms`, ...); modules named
`*_host` hold a form for CPUs that takes and gives NumPy arrays and imports no JAX. `variants.select` chooses.
"""
