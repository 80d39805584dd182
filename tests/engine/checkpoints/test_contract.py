"""What holds for every source of weights: one contract that each format inherits."""

import json
import sys
import time
from collections import namedtuple
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import weighbridge
from weighbridge import BadArgument, Checkpoint, ReadFailed, SourceNotFound, Tensor, TensorNotFound, WeighbridgeError

Arrays = dict[str, np.ndarray]


def noise(shape: tuple[int, ...], dtype: Any, seed: int = 0) -> np.ndarray:
    """Random bits, so that NaN, infinities and subnormals are among the values."""
    dtype = np.dtype(dtype)
    rng = np.random.default_rng(seed)
    if dtype.kind == "b":
        return rng.integers(0, 2, shape).astype(bool)
    return np.frombuffer(rng.bytes(int(np.prod(shape)) * dtype.itemsize), dtype).reshape(shape)


PLAIN: Arrays = {
    "complex": noise((4, 3), np.complex64),
    "cube": noise((5, 7, 3), np.int16),
    "empty": noise((0,), np.float32),
    "half": noise((3, 1, 2, 5), np.float16),
    "hollow": noise((3, 0, 2), np.uint8),
    "mask": noise((13,), bool),
    "matrix": noise((19, 23), np.float32),
    "missing": np.full(6, np.nan, np.float32),
    "one": noise((1, 1), np.int8),
    "scalar": noise((), np.float32),
}
WIDE = {"wide": noise((6, 1), np.int64), "wide_scalar": noise((), np.float64)}
NARROW = {"brain": noise((31,), ml_dtypes.bfloat16), "quarter": noise((5, 3), ml_dtypes.float8_e4m3fn)}

at = np.s_
INDICES = [
    at[()], at[0], at[-1], at[2], at[-3], at[50], at[np.int64(0)],
    at[:], at[1:4], at[::2], at[1::3], at[::-1], at[-3:], at[:-2], at[5:1:-2], at[4:1], at[1:1], at[100:], at[-100:100],
    at[0,], at[:, 0], at[0, 0], at[-1, :], at[:, -1], at[1:, ::-1], at[::-2, ::-2], at[:, 1:1], at[3:0:-1, 1:],
    at[:, :, 1:], at[0, :, -1], at[2:0:-1, -1, ::2], at[-1, -1, -1], at[:, 2:0:-1, ::-1],
    at[0, 0, 0, 0], at[:, :, :, ::-3], at[0, 0, 0, 0, 0],
]  # fmt: skip


def show(index: Any) -> str:
    parts = index if isinstance(index, tuple) else (index,)
    return ",".join(str(p) if not isinstance(p, slice) else f"{p.start}:{p.stop}:{p.step}" for p in parts) or "all"


def same(got: Any, expected: Any) -> None:
    """Equal in shape, dtype and bits."""
    expected = np.asarray(expected)
    assert isinstance(got, np.ndarray)
    assert (got.shape, got.dtype) == (expected.shape, expected.dtype)
    assert got.tobytes() == expected.tobytes()


class CheckpointContract:
    """A format gives `originals`, in the order expected, and a `source` that holds them."""

    @pytest.fixture
    def originals(self) -> Arrays:
        return PLAIN

    @pytest.fixture
    def source(self, originals: Arrays, tmp_path: Path) -> Any:
        raise NotImplementedError

    @pytest.fixture
    def checkpoint(self, source: Any) -> Checkpoint:
        return weighbridge.open(source)

    def test_names_in_order(self, checkpoint: Checkpoint, originals: Arrays) -> None:
        assert list(checkpoint) == list(originals)
        assert [tensor.name for tensor in checkpoint.values()] == list(originals)
        assert len(checkpoint) == len(originals)
        assert checkpoint.faults == ()

    def test_contains(self, checkpoint: Checkpoint, originals: Arrays) -> None:
        assert all(name in checkpoint for name in originals)
        assert "no such tensor" not in checkpoint
        assert 3 not in checkpoint

    def test_shapes_and_dtypes(self, checkpoint: Checkpoint, originals: Arrays) -> None:
        for name, original in originals.items():
            assert checkpoint[name].shape == original.shape
            assert checkpoint[name].dtype.array == original.dtype
            assert checkpoint[name].count == original.size
            assert checkpoint[name].nbytes == original.nbytes
        assert checkpoint.nbytes == sum(original.nbytes for original in originals.values())

    def test_files_are_named(self, checkpoint: Checkpoint) -> None:
        assert {tensor.file for tensor in checkpoint.values()} <= {file.name for file in checkpoint.files}

    def test_read(self, checkpoint: Checkpoint, originals: Arrays) -> None:
        for name, original in originals.items():
            same(checkpoint[name].read(), original)

    @pytest.mark.parametrize("index", INDICES, ids=show)
    def test_read_slices(self, checkpoint: Checkpoint, originals: Arrays, index: Any) -> None:
        for name, original in originals.items():
            try:
                expected = original[index]
            except IndexError:
                with pytest.raises(IndexError):
                    checkpoint[name].read(index)
            else:
                same(checkpoint[name].read(index), expected)

    def test_what_was_read_is_ones_own(self, checkpoint: Checkpoint, originals: Arrays) -> None:
        for name, original in originals.items():
            checkpoint[name].read()[...] = 1
            same(checkpoint[name].read(), original)

    def test_read_into_from_any_byte(self, checkpoint: Checkpoint, originals: Arrays) -> None:
        for name, original in originals.items():
            packed = original.tobytes()
            bounds = sorted({0, 1, 3, len(packed) // 2, len(packed) - 1, len(packed)} & set(range(len(packed) + 1)))
            for begin in reversed(bounds):
                for end in (bound for bound in bounds if bound >= begin):
                    buffer = bytearray(end - begin)
                    checkpoint[name].read_into(memoryview(buffer), begin)
                    assert buffer == packed[begin:end]

    def test_an_extent_is_where_the_bytes_are(self, checkpoint: Checkpoint, originals: Arrays) -> None:
        for name, original in originals.items():
            extent = checkpoint[name].extent
            if extent is not None:
                source, begin = extent
                assert source.name == checkpoint[name].file
                assert source.read(begin, original.nbytes) == original.tobytes()

    def test_eight_threads_read_the_same(self, checkpoint: Checkpoint, originals: Arrays) -> None:
        def read_all(seed: int) -> None:
            for name in np.random.default_rng(seed).permutation(list(originals) * 3).tolist():
                same(checkpoint[name].read(), originals[name])
                inner = (slice(1, None),) * originals[name].ndim
                same(checkpoint[name].read(inner), originals[name][inner])

        with ThreadPoolExecutor(8) as threads:
            for done in [threads.submit(read_all, seed) for seed in range(8)]:
                done.result()

    def test_an_unknown_name_is_a_key_error(self, checkpoint: Checkpoint, originals: Arrays) -> None:
        close = max(originals, key=len)
        with pytest.raises(KeyError) as caught:
            checkpoint[close + "x"]
        assert type(caught.value) is TensorNotFound
        assert isinstance(caught.value, WeighbridgeError)
        message = str(caught.value)
        assert len(message.splitlines()) == 1
        assert message.startswith(f"{checkpoint.name}: no tensor {close + 'x'!r} among its {len(originals)}")
        assert f"did you mean {close!r}?" in message

    def test_the_header_hash_stays(self, checkpoint: Checkpoint, source: Any) -> None:
        assert weighbridge.open(source).header_hash == checkpoint.header_hash

    def test_a_checkpoint_opens_as_itself(self, checkpoint: Checkpoint) -> None:
        assert weighbridge.open(checkpoint) is checkpoint

    def test_reprs_are_short_lines(self, checkpoint: Checkpoint) -> None:
        for thing in (checkpoint, *checkpoint.values()):
            assert len(repr(thing).splitlines()) == 1
            assert len(repr(thing)) < 200
            assert thing.name in repr(thing)


class FileContract(CheckpointContract):
    """A format of files gives `store`."""

    @pytest.fixture
    def store(self, tmp_path: Path) -> Callable[[Arrays], Path]:
        raise NotImplementedError

    @pytest.fixture
    def source(self, store: Callable[[Arrays], Path], originals: Arrays) -> Path:
        return store(originals)

    def test_opening_reads_headers_only(self, store: Callable[[Arrays], Path], read_sizes: list[int]) -> None:
        fat = {name: noise((1 << 20,), np.uint8, seed) for seed, name in enumerate(("weights", "more"))}
        path = store(fat)
        read_sizes.clear()
        checkpoint = weighbridge.open(path)
        repr(checkpoint), checkpoint.header_hash, [repr(tensor) for tensor in checkpoint.values()]
        assert 0 < sum(read_sizes) < 100_000

    def test_a_path_may_be_text(self, source: Path, originals: Arrays) -> None:
        assert list(weighbridge.open(str(source))) == list(originals)

    def test_a_file_that_shrinks_fails_to_read(self, store: Callable[[Arrays], Path]) -> None:
        original = noise((1 << 20,), np.uint8)
        path = store({"weights": original})
        checkpoint = weighbridge.open(path)
        tensor = checkpoint["weights"]
        file = (path if path.is_dir() else path.parent) / tensor.file
        with file.open("r+b") as opened:
            opened.truncate(file.stat().st_size // 2)
        with pytest.raises(ReadFailed) as caught:
            tensor.read()
        assert len(str(caught.value).splitlines()) == 1
        assert file.name in str(caught.value)


class RangedFileContract(FileContract):
    """A format whose entries lie plain in the file."""

    def test_a_slice_reads_no_more(self, store: Callable[[Arrays], Path], read_sizes: list[int]) -> None:
        fat = noise((1 << 10, 1 << 10), np.uint8)
        checkpoint = weighbridge.open(store({"weights": fat}))
        read_sizes.clear()
        same(checkpoint["weights"].read(at[5:11, ::7]), fat[5:11, ::7])
        assert read_sizes == [6 << 10]


class TestSafetensorsFile(RangedFileContract):
    @pytest.fixture
    def originals(self) -> Arrays:
        return PLAIN | WIDE | NARROW

    @pytest.fixture
    def store(self, write: Callable[..., Path], pack_arrays: Callable[[Arrays], bytes]) -> Callable[[Arrays], Path]:
        return lambda arrays: write("net.safetensors", pack_arrays(arrays))

    def test_opening_reads_the_header_and_its_length(self, source: Path, read_sizes: list[int]) -> None:
        weighbridge.open(source)
        length = int.from_bytes(source.read_bytes()[:8], "little")
        assert read_sizes == [8, length]

    def test_only_the_rows_asked_for_are_read(self, source: Path, read_sizes: list[int]) -> None:
        checkpoint = weighbridge.open(source)
        read_sizes.clear()
        checkpoint["matrix"].read(at[3:5, ::-1])
        checkpoint["matrix"].read(at[-1, 0])
        assert read_sizes == [2 * 23 * 4, 23 * 4]

    def test_it_is_called_after_its_file(self, checkpoint: Checkpoint) -> None:
        assert checkpoint.name == "net"


class TestSafetensorsFolder(RangedFileContract):
    @pytest.fixture
    def originals(self) -> Arrays:
        return PLAIN | WIDE | NARROW

    @pytest.fixture
    def store(
        self, tmp_path: Path, write: Callable[..., Path], pack_arrays: Callable[[Arrays], bytes]
    ) -> Callable[[Arrays], Path]:
        def stored(arrays: Arrays) -> Path:
            names = list(arrays)
            half = (len(names) + 1) // 2
            for file, part in (("a", names[:half]), ("b", names[half:])):
                write(f"net/{file}.safetensors", pack_arrays({name: arrays[name] for name in part}))
            return tmp_path / "net"

        return stored


class TestShardedIndex(RangedFileContract):
    """Shards listed in the order of their names, though the index lists them otherwise."""

    @pytest.fixture
    def originals(self) -> Arrays:
        return PLAIN | WIDE | NARROW

    @pytest.fixture(params=["index", "folder"])
    def store(
        self,
        request: pytest.FixtureRequest,
        tmp_path: Path,
        write: Callable[..., Path],
        pack_arrays: Callable[[Arrays], bytes],
    ) -> Callable[[Arrays], Path]:
        def stored(arrays: Arrays) -> Path:
            names = list(arrays)
            third = max(len(names) // 3, 1)
            shards = {f"part/model-{i // third}.safetensors": names[i : i + third] for i in range(0, len(names), third)}
            for file, part in shards.items():
                write(f"net/{file}", pack_arrays({name: arrays[name] for name in part}))
            weight_map = {name: file for file, part in reversed(shards.items()) for name in part}
            index = write(
                "net/model.safetensors.index.json",
                json.dumps({"metadata": {"total_size": 1}, "weight_map": weight_map}).encode(),
            )
            return index if request.param == "index" else tmp_path / "net"

        return stored

    def test_it_is_called_after_its_folder(self, checkpoint: Checkpoint) -> None:
        assert checkpoint.name == "net"


NPY = {
    "C order": noise((19, 23), np.float32),
    "Fortran order": np.asfortranarray(noise((19, 23), np.float32)),
    "Fortran cube": np.asfortranarray(noise((5, 7, 3), np.int16)),
    "big-endian": noise((19, 23), ">f4"),
    "big-endian complex": noise((4, 3), ">c8"),
    "big-endian Fortran": np.asfortranarray(noise((4, 3), ">f8")),
    "wide complex": noise((4, 3), np.complex128),
    "mask": noise((13,), bool),
    "scalar": noise((), np.float64),
    "big-endian scalar": noise((), ">i4"),
    "empty": noise((0,), np.float32),
    "big-endian empty": noise((0,), ">f4"),
    "hollow": noise((3, 0, 2), np.uint8),
    "Fortran hollow": np.asfortranarray(noise((3, 0, 2), ">f4")),
}


class TestNpy(RangedFileContract):
    @pytest.fixture(params=NPY, ids=lambda kind: kind.replace(" ", "_"))
    def array(self, request: pytest.FixtureRequest) -> np.ndarray:
        return NPY[request.param]

    @pytest.fixture
    def originals(self, array: np.ndarray) -> Arrays:
        return {"weights": array.astype(array.dtype.newbyteorder("="))}

    @pytest.fixture
    def store(self, tmp_path: Path) -> Callable[[Arrays], Path]:
        def stored(arrays: Arrays) -> Path:
            np.save(tmp_path / "weights.npy", arrays["weights"])
            return tmp_path / "weights.npy"

        return stored

    @pytest.fixture
    def source(self, store: Callable[[Arrays], Path], array: np.ndarray) -> Path:
        return store({"weights": array})

    @pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)], ids=str)
    @pytest.mark.filterwarnings("ignore:Stored array in format:UserWarning")
    def test_every_version(self, tmp_path: Path, version: tuple[int, int]) -> None:
        with (tmp_path / "weights.npy").open("wb") as file:
            np.lib.format.write_array(file, PLAIN["matrix"], version)
        same(weighbridge.open(tmp_path / "weights.npy")["weights"].read(), PLAIN["matrix"])


class NpzContract(FileContract):
    @pytest.fixture
    def originals(self) -> Arrays:
        return PLAIN | WIDE

    @pytest.fixture
    def store(self, tmp_path: Path) -> Callable[[Arrays], Path]:
        def stored(arrays: Arrays) -> Path:
            self.save(tmp_path / "net.npz", **arrays)
            return tmp_path / "net.npz"

        return stored

    def test_fortran_order_and_other_ends(self, store: Callable[[Arrays], Path]) -> None:
        checkpoint = weighbridge.open(store(NPY))
        assert list(checkpoint) == list(NPY)
        for name, original in NPY.items():
            same(checkpoint[name].read(), original.astype(original.dtype.newbyteorder("=")))

    def test_an_archive_alone_in_a_folder(self, source: Path, originals: Arrays) -> None:
        assert list(weighbridge.open(source.parent)) == list(originals)


class TestNpzStored(NpzContract, RangedFileContract):
    save = staticmethod(np.savez)


class TestNpzCompressed(NpzContract):
    save = staticmethod(np.savez_compressed)

    def test_one_array_backwards_and_forwards(self, tmp_path: Path) -> None:
        original = noise((3001, 211), np.float32)
        np.savez_compressed(tmp_path / "net.npz", weights=original)
        tensor = weighbridge.open(tmp_path / "net.npz")["weights"]
        for row in (2999, 7, 8, 1500, 0, 3000):
            same(tensor.read(row), original[row])


class Reluctant:
    """An array that says when it comes to the host."""

    def __init__(self, array: np.ndarray) -> None:
        self.array, self.shape, self.dtype = array, array.shape, array.dtype
        self.calls = 0

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        self.calls += 1
        return self.array


class TreeContract(CheckpointContract):
    """Trees of NumPy arrays, with JAX imported and without: the same names either way."""

    @pytest.fixture(params=["jax", "no jax"], autouse=True)
    def _jax(self, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
        pytest.importorskip("jax")
        if request.param == "no jax":
            monkeypatch.delitem(sys.modules, "jax")


class TestDict(TreeContract):
    @pytest.fixture
    def originals(self) -> Arrays:
        return dict(sorted((PLAIN | WIDE | NARROW).items()))

    @pytest.fixture
    def source(self, originals: Arrays) -> Any:
        return dict(reversed(originals.items()))

    def test_opening_converts_nothing(self) -> None:
        leaf = Reluctant(PLAIN["matrix"])
        checkpoint = weighbridge.open({"weights": leaf})
        repr(checkpoint), checkpoint.header_hash
        assert leaf.calls == 0
        same(checkpoint["weights"].read(), PLAIN["matrix"])


class TestStridedAndForeignArrays(TreeContract):
    """Views that are not contiguous, and arrays of the other byte order, read as their values in row-major order."""

    @pytest.fixture
    def source(self) -> Any:
        return {
            "fortran": NPY["Fortran order"],
            "other_end": NPY["big-endian"],
            "reversed": PLAIN["cube"][::-1, ::2, ::-1],
            "transposed": PLAIN["matrix"].T,
            "view_of_none": PLAIN["matrix"][::2, 5:5],
        }

    @pytest.fixture
    def originals(self, source: Any) -> Arrays:
        return {
            name: np.ascontiguousarray(array.astype(array.dtype.newbyteorder("="))) for name, array in source.items()
        }


Pair = namedtuple("Pair", ["weight", "bias"])


class TestNestedContainers(TreeContract):
    @pytest.fixture
    def source(self) -> Any:
        layers = [Pair(PLAIN["matrix"], PLAIN["missing"]), Pair(PLAIN["cube"], None)]
        return {"layers": layers, "head": (PLAIN["scalar"], {"x": PLAIN["hollow"]}), "step": 7}

    @pytest.fixture
    def originals(self) -> Arrays:
        return {
            "head.0": PLAIN["scalar"],
            "head.1.x": PLAIN["hollow"],
            "layers.0.weight": PLAIN["matrix"],
            "layers.0.bias": PLAIN["missing"],
            "layers.1.weight": PLAIN["cube"],
            "step": np.asarray(7),
        }


class TestArray(TreeContract):
    @pytest.fixture
    def source(self) -> Any:
        return PLAIN["matrix"]

    @pytest.fixture
    def originals(self) -> Arrays:
        return {"array": PLAIN["matrix"]}


class JaxContract(CheckpointContract):
    @pytest.fixture
    def originals(self) -> Arrays:
        return dict(sorted((PLAIN | NARROW).items()))

    @pytest.fixture
    def on_device(self, originals: Arrays) -> dict[str, Any]:
        jnp = pytest.importorskip("jax.numpy")
        return {name: jnp.asarray(array) for name, array in originals.items()}


class TestJaxArrays(JaxContract):
    @pytest.fixture
    def source(self, on_device: dict[str, Any]) -> Any:
        return on_device

    def test_a_deleted_array_fails_to_read(self, on_device: dict[str, Any]) -> None:
        checkpoint = weighbridge.open(on_device)
        on_device["matrix"].delete()
        with pytest.raises(ReadFailed, match="'matrix'") as caught:
            checkpoint["matrix"].read()
        assert len(str(caught.value).splitlines()) == 1
        same(checkpoint["cube"].read(), PLAIN["cube"])

    def test_an_abstract_array_fails_to_read(self) -> None:
        jax = pytest.importorskip("jax")
        checkpoint = weighbridge.open({"weights": jax.ShapeDtypeStruct((3, 2), np.float32)})
        with pytest.raises(ReadFailed, match="'weights'"):
            checkpoint["weights"].read()


class TestNnxModule(JaxContract):
    @pytest.fixture
    def source(self, on_device: dict[str, Any]) -> Any:
        return self.module(on_device)

    @staticmethod
    def module(on_device: dict[str, Any]) -> Any:
        nnx = pytest.importorskip("flax.nnx")

        class Net(nnx.Module):
            def __init__(self) -> None:
                for name, array in on_device.items():
                    setattr(self, name, nnx.Param(array))

        return Net()

    def test_layers_and_random_states(self) -> None:
        nnx = pytest.importorskip("flax.nnx")

        class Net(nnx.Module):
            def __init__(self, rngs: Any) -> None:
                self.layers = nnx.List([nnx.Linear(3, 5, rngs=rngs), nnx.Linear(5, 2, use_bias=False, rngs=rngs)])
                self.dropout = nnx.Dropout(0.5, rngs=rngs)

        net = Net(nnx.Rngs(0))
        checkpoint = weighbridge.open(net)
        weights = {"layers.0.bias", "layers.0.kernel", "layers.1.kernel"}
        assert {name for name in checkpoint if name.startswith("layers")} == weights
        same(checkpoint["layers.1.kernel"].read(), np.asarray(net.layers[1].kernel[...]))
        assert [fault.name for fault in checkpoint.faults] == ["dropout.rngs.key"]
        assert "holds no weights" in checkpoint.faults[0].reason


class TestNnxState(TestNnxModule):
    @pytest.fixture
    def source(self, on_device: dict[str, Any]) -> Any:
        return pytest.importorskip("flax.nnx").state(self.module(on_device))


class TestLinenParameters(JaxContract):
    @pytest.fixture
    def source(self, on_device: dict[str, Any]) -> Any:
        jax, nn = pytest.importorskip("jax"), pytest.importorskip("flax.linen")

        class Net(nn.Module):
            @nn.compact
            def __call__(self) -> None:
                for name, array in on_device.items():
                    self.param(name, lambda key, array=array: array)

        return Net().init(jax.random.key(0))

    @pytest.fixture
    def originals(self) -> Arrays:
        return {f"params.{name}": array for name, array in sorted((PLAIN | NARROW).items())}

    @pytest.fixture
    def on_device(self) -> dict[str, Any]:
        jnp = pytest.importorskip("jax.numpy")
        return {name: jnp.asarray(array) for name, array in (PLAIN | NARROW).items()}


class TestOptaxState(JaxContract):
    @pytest.fixture
    def state(self) -> Any:
        jax, optax = pytest.importorskip("jax"), pytest.importorskip("optax")
        params = {"bias": np.linspace(-1, 1, 5, dtype=np.float32), "kernel": np.ones((3, 5), np.float32)}
        optimizer = optax.adam(1e-3)
        with jax.numpy_dtype_promotion("standard"):
            return optimizer.update(params, optimizer.init(params))[1]

    @pytest.fixture
    def source(self, state: Any) -> Any:
        return state

    @pytest.fixture
    def originals(self, state: Any) -> Arrays:
        return {
            "0.count": np.asarray(1, np.int32),
            "0.mu.bias": np.asarray(state[0].mu["bias"]),
            "0.mu.kernel": np.asarray(state[0].mu["kernel"]),
            "0.nu.bias": np.asarray(state[0].nu["bias"]),
            "0.nu.kernel": np.asarray(state[0].nu["kernel"]),
        }


@pytest.fixture(params=["jax", "no jax"])
def _with_and_without_jax(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    pytest.importorskip("jax")
    if request.param == "no jax":
        monkeypatch.delitem(sys.modules, "jax")


@pytest.mark.usefixtures("_with_and_without_jax")
class TestTreesOfOtherThings:
    def test_leaves_without_numbers_are_faults(self) -> None:
        checkpoint = weighbridge.open({"a": np.ones(2), "b": "text", "c": np.array([{}]), "d": None, "e": 10**30})
        assert list(checkpoint) == ["a"]
        assert [fault.name for fault in checkpoint.faults] == ["b", "c", "e"]
        assert all(fault.reason.startswith(f"{fault.name}: dtype ") for fault in checkpoint.faults)

    def test_two_leaves_of_one_name(self) -> None:
        with pytest.raises(WeighbridgeError, match=r"two leaves are called 'a\.b'"):
            weighbridge.open({"a.b": np.ones(2), "a": {"b": np.ones(3)}})

    @pytest.mark.parametrize(
        "source", [None, 3, 2.5, object(), b"path", {1}, len], ids=lambda source: type(source).__name__
    )
    def test_no_source_at_all(self, source: Any) -> None:
        with pytest.raises(BadArgument, match="expected a path, an address, an array"):
            weighbridge.open(source)

    def test_an_empty_tree(self) -> None:
        assert list(weighbridge.open({})) == []


class TestPaths:
    """Paths that lead to no checkpoint: each says in a line what is there and what was expected."""

    @pytest.mark.parametrize(
        "path", ["nowhere.safetensors", "nowhere", "x" * 300, "nul\0byte", "~nobody_of_this_name/net.npz", ""]
    )
    def test_nothing_there(self, path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        with pytest.raises(SourceNotFound) as caught:
            weighbridge.open(path)
        assert isinstance(caught.value, FileNotFoundError)
        assert len(str(caught.value).splitlines()) == 1

    def test_an_unknown_suffix(self, write: Callable[..., Path], refuses: Callable[..., None]) -> None:
        refuses(write("model.bin", b"x"), "expected .safetensors", error=BadArgument)

    def test_an_empty_folder(self, tmp_path: Path, refuses: Callable[..., None]) -> None:
        refuses(tmp_path, "holds no .safetensors, .npz or .npy file", error=SourceNotFound)

    def test_a_folder_of_several_arrays(
        self, tmp_path: Path, write: Callable[..., Path], refuses: Callable[..., None]
    ) -> None:
        write("a.npy", b""), write("b.npz", b"")
        refuses(tmp_path, "holds 2 NumPy files; name one", error=SourceNotFound)

    def test_a_folder_of_several_indices(
        self, tmp_path: Path, write: Callable[..., Path], refuses: Callable[..., None]
    ) -> None:
        write("a.safetensors.index.json", b"{}"), write("b.safetensors.index.json", b"{}")
        refuses(tmp_path, "holds 2 indices (a.safetensors.index.json, b.safetensors.index.json)", error=BadArgument)

    def test_a_hub_snapshot_is_called_after_its_model(
        self, tmp_path: Path, write: Callable[..., Path], pack_arrays: Callable[[Arrays], bytes]
    ) -> None:
        write("models--maker--net/snapshots/" + "0a" * 20 + "/model.safetensors", pack_arrays(PLAIN))
        folder = tmp_path / "models--maker--net" / "snapshots" / ("0a" * 20)
        assert weighbridge.open(folder).name == "maker_net"
        assert weighbridge.open(folder / "model.safetensors").name == "maker_net"


@given(data=st.data(), array=hnp.arrays(np.int16, hnp.array_shapes(min_dims=0, min_side=0, max_side=7)))
def test_any_slices_are_as_numpys(data: st.DataObject, array: np.ndarray) -> None:
    index = data.draw(hnp.basic_indices(array.shape, allow_ellipsis=False, min_dims=0))
    same(weighbridge.open({"x": array})["x"].read(index), array[index])


def test_many_empty_rows_take_no_time(write: Callable[..., Path], pack: Callable[..., bytes]) -> None:
    """A tensor without entries may claim a first axis that is never walked along."""
    path = write("net.safetensors", pack({"x": {"dtype": "U8", "shape": [1 << 27, 0], "data_offsets": [0, 0]}}))
    tensor = weighbridge.open(path)["x"]
    began = time.perf_counter()
    assert tensor.read().shape == (1 << 27, 0)
    assert tensor.read(at[::-2]).shape == (1 << 26, 0)
    assert time.perf_counter() - began < 1


class Recorded(Tensor):
    """Ten rows of three bytes that note which bytes are asked for."""

    def __init__(self) -> None:
        known = weighbridge.open({"x": np.arange(30, dtype=np.uint8)})["x"]
        self.name, self.file, self.dtype, self.shape = "x", "", known.dtype, (10, 3)
        self.asked: list[tuple[int, int]] = []

    def read_into(self, buffer: memoryview, offset: int) -> None:
        self.asked.append((offset, len(buffer)))
        buffer[:] = bytes(range(offset, offset + len(buffer)))


@pytest.mark.parametrize(
    ("index", "asked"),
    [(at[2:4], [(6, 6)]), (at[-1], [(27, 3)]), (at[8:4:-2], [(18, 9)]), (at[4:2], []), (at[1:2, 0:0], [(3, 3)])],
    ids=str,
)
def test_a_protocol_needs_read_into_alone(index: Any, asked: list[tuple[int, int]]) -> None:
    tensor = Recorded()
    same(tensor.read(index), np.arange(30, dtype=np.uint8).reshape(10, 3)[index])
    assert tensor.asked == asked
