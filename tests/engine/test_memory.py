"""A scan holds a bounded part of a checkpoint, whatever the size of its tensors."""

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

SCRIPT = """
    import sys, threading
    import ml_dtypes, numpy as np
    import weighbridge
    from weighbridge import demo
    from weighbridge.checkpoints.dtypes import SAFETENSORS
    from weighbridge.checkpoints.protocol import Checkpoint, SourceFile, Tensor

    weights = [t.read().reshape(-1) for t in weighbridge.open(demo.locate("digits")).values() if t.count > 1000]
    pool = np.resize(np.concatenate(weights).astype(ml_dtypes.bfloat16), 1 << 24).view(np.uint8)

    class Tiled(Tensor):
        def __init__(self, name, rows, cols):
            self.name, self.shape, self.dtype, self.file = name, (rows, cols), SAFETENSORS["BF16"], "made"

        def read_into(self, buffer, offset):
            at = offset % (pool.size // 2)
            buffer[:] = pool[at : at + len(buffer)].data

    def anonymous():
        lines = open("/proc/self/status").read().splitlines()
        return next(int(line.split()[1]) << 10 for line in lines if line.startswith("RssAnon"))

    def watch():
        global peak
        while not done.wait(0.005):
            peak = max(peak, anonymous())

    mebibytes, folder = int(sys.argv[1]), sys.argv[2]
    big = Tiled("big.weight", mebibytes * 3 // 4 << 4, 1 << 15)
    rest = [Tiled(f"layer.{i}.weight", mebibytes // 4 // 8 << 8, 1 << 11) for i in range(8)]
    checkpoint = Checkpoint("made", [SourceFile("made", 0, 0, "0")], [big, *rest])
    assert checkpoint.nbytes == mebibytes << 20
    peak, done = 0, threading.Event()
    watcher = threading.Thread(target=watch)
    watcher.start()
    weighbridge.scan(checkpoint, report=folder, device="cpu")
    done.set()
    watcher.join()
    print(peak)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads Linux's account of anonymous memory")
@pytest.mark.parametrize("mebibytes", [1024, pytest.param(4096, marks=pytest.mark.slow)])
def test_anonymous_memory(mebibytes: int, tmp_path: Path) -> None:
    """Three quarters of the checkpoint are one tensor; at the default bound 1.5 GiB would do, a third of that must."""
    command = [sys.executable, "-c", textwrap.dedent(SCRIPT), str(mebibytes), str(tmp_path / "report")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(done.stdout) < 512 << 20
