"""A command imports only what it uses, and the parts of the package know each other in one direction only."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

import weighbridge
import weighbridge_kernels

ENGINE = Path(weighbridge.__file__).parent
KERNELS = Path(weighbridge_kernels.__file__).parent
HEAVY = ("jax", "numba", "pandas", "holoviews", "panel", "datashader", "bokeh", "flax", "torch", "zarr")
PLOTTING = ("panel", "holoviews", "datashader", "bokeh", "zarr")


def loaded(code):
    """The top-level packages in `sys.modules` after some code has run in a fresh interpreter."""
    last = "import json, sys; print(json.dumps(sorted({name.split('.')[0] for name in sys.modules})))"
    done = subprocess.run([sys.executable, "-c", f"{code}\n{last}"], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout.splitlines()[-1]))


COMMAND = """
import sys
from weighbridge import cli
sys.argv = {arguments!r}
try:
    cli.main()
except SystemExit as end:
    assert end.code == 0, end.code
"""


def loaded_by_command(*arguments):
    return loaded(COMMAND.format(arguments=["weighbridge", *map(str, arguments)]))


def test_the_package_alone_loads_nothing_heavy():
    assert loaded("import weighbridge") & {*HEAVY, "numpy", "rich", "typer", "pyarrow"} == set()


@pytest.mark.parametrize("arguments", [["--help"], ["scan", "--help"], ["--version"]], ids=" ".join)
def test_help_loads_nothing_heavy(arguments):
    assert loaded_by_command(*arguments) & set(HEAVY) == set()


def test_opening_a_checkpoint_loads_nothing_heavy(digits):
    assert loaded(f"import weighbridge; weighbridge.open({str(digits)!r})") & {*HEAVY, "pyarrow"} == set()


def test_a_scan_on_the_cpu_loads_no_accelerator_and_no_plots(digits, tmp_path):
    found = loaded_by_command("scan", digits, "--report", tmp_path / "report", "--device", "cpu")
    assert found & {"jax", "jaxlib", "flax", "torch", *PLOTTING} == set()
    assert "numba" in found


def test_showing_a_report_loads_no_kernels(digits, tmp_path):
    weighbridge.scan(digits, report=tmp_path / "report", device="cpu")
    for command in ("show", "findings"):
        assert loaded_by_command(command, tmp_path / "report") & {"jax", "numba", "torch", *PLOTTING} == set()


def test_every_public_name_is_there():
    for name in weighbridge.__all__:
        found = getattr(weighbridge, name)
        assert getattr(found, "__module__", found.__name__).startswith("weighbridge.")
    assert dir(weighbridge) == sorted(weighbridge.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'weigh'"):
        weighbridge.weigh  # noqa: B018


def imports(path, package_root):
    """Every module that a file imports anywhere in it, by its full name."""
    inside = [*path.relative_to(package_root.parent).with_suffix("").parts[:-1]]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = inside[: len(inside) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)


def files(*names):
    """The Python files of the engine under some names: files or folders."""
    found = [
        path for name in names for path in ([ENGINE / name] if name.endswith(".py") else (ENGINE / name).rglob("*.py"))
    ]
    assert found
    return found


def reaches(path, root, *forbidden):
    return [name for name in imports(path, root) if any(name == f or name.startswith(f + ".") for f in forbidden)]


FRONT = ("document", "app", "cli", "exports", "snapshots", "demo", "bench")
UPPER = ("analyses", "models", "pyramid", "views", "terminal", *FRONT)
DIRECTION = {
    "checkpoints": (*UPPER, "report", "stream", "matrix", "devices"),
    "stream.py": (*UPPER, "report", "matrix", "roles"),
    "errors.py": (*UPPER, "report", "matrix", "roles", "checkpoints", "stream"),
    "roles.py": (*UPPER, "report", "matrix", "checkpoints", "stream"),
    "patterns.py": (*UPPER, "report", "matrix", "roles", "checkpoints", "stream"),
    "matrix.py": (*UPPER, "report", "checkpoints", "stream"),
    "circuit.py": (*UPPER, "report", "checkpoints", "stream", "matrix", "roles"),
    "devices.py": (*UPPER, "report", "checkpoints", "stream", "matrix", "roles"),
    "report": (*UPPER, "stream"),
    "analyses": ("models", "views", "document", "app", "cli", "exports", "terminal", "demo", "bench"),
    "models": ("analyses", "pyramid", "views", "terminal", *FRONT),
    "terminal.py": ("models", "views", "document", "app", "cli", "exports", "demo", "bench", "stream"),
    "pyramid": (*(name for name in UPPER if name != "pyramid"), "report"),
    "views": ("analyses", "models", "stream", "devices", *FRONT),
}
"""What each part of the engine must not import at run time."""


def test_every_part_has_its_place():
    parts = {
        path.name for path in ENGINE.iterdir() if path.name not in ("__init__.py", "__pycache__", "data", "py.typed")
    }
    assert parts <= {*DIRECTION, *UPPER, *(f"{name}.py" for name in UPPER)}


def only_for_types(path):
    """Modules that a file imports for its annotations alone, under `if TYPE_CHECKING`."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            for inner in node.body:
                if isinstance(inner, ast.ImportFrom):
                    yield from (inner.module, *(f"{inner.module}.{alias.name}" for alias in inner.names))


@pytest.mark.parametrize("part", DIRECTION)
def test_the_engine_imports_downwards(part):
    forbidden = [f"weighbridge.{name}" for name in DIRECTION[part]]
    for path in files(part):
        upwards = set(reaches(path, ENGINE, *forbidden)) - set(only_for_types(path))
        assert upwards == set(), path.relative_to(ENGINE)


def test_kernels_know_nothing_of_the_engine():
    for path in KERNELS.rglob("*.py"):
        assert reaches(path, KERNELS, "weighbridge") == [], path.name


def test_the_stream_knows_checkpoints_errors_and_sizes_alone():
    own = {name for name in imports(ENGINE / "stream.py", ENGINE) if name.startswith("weighbridge")}
    assert {".".join(name.split(".")[:2]) for name in own} == {
        "weighbridge.checkpoints",
        "weighbridge.errors",
        "weighbridge_kernels.padding",
    }


@pytest.mark.parametrize("package", ["jax", "numba", "holoviews", "panel", "datashader"])
def test_the_engine_leaves_arithmetic_and_pictures_to_others(package):
    """JAX is known to the reader of trees in memory, which only looks whether it is there."""
    for path in files("checkpoints", "report", "analyses", "stream.py", "cli.py", "terminal.py"):
        if (package, path.name) != ("jax", "pytree.py"):
            assert reaches(path, ENGINE, package) == [], path.relative_to(ENGINE)


def test_the_reader_of_imports_sees_what_it_must(tmp_path):
    package = tmp_path / "weighbridge"
    (package / "sub").mkdir(parents=True)
    path = package / "sub" / "a.py"
    path.write_text("def f():\n    import jax.numpy as jnp\n    from ..views import heat\n    from . import b\n")
    found = set(imports(path, package))
    assert found == {"jax.numpy", "weighbridge.views", "weighbridge.views.heat", "weighbridge.sub", "weighbridge.sub.b"}
