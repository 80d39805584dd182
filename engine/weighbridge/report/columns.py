"""A column of a table, and the columns that tables share."""

from typing import NamedTuple


class Column(NamedTuple):
    name: str
    type: str
    meaning: str


FINITE = "of the finite entries"
MATRIX = (
    Column("name", "string", "the tensor's name"),
    Column("part", "string", "expert, head or place in a kernel; empty for the whole tensor"),
    Column("step", "int64", "training step; null for a checkpoint"),
    Column("shape", "list<int64>", "sides of the tensor, outermost first"),
    Column("dtype", "string", "dtype as stored, in the names of safetensors"),
    Column("role", "string", "what the tensor is for, by its name"),
    Column("layer", "int32", "number of the block it belongs to, by its name"),
    Column("rows", "int64", "rows of the matrix"),
    Column("cols", "int64", "columns of the matrix"),
)
STATE = (
    Column("status", "string", "done, skipped or failed"),
    Column("reason", "string", "why the row is missing; null for none"),
    Column("variant", "string", "form of the kernels that ran"),
    Column("order", "int64", "position in the checkpoint"),
)
