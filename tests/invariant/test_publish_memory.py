"""A model that ZeRO-3 splits over ranks is published by groups of layers: no rank ever holds it whole, let alone twice.

Two real ranks, and what the kernel counts: the peak of the resident memory while all weights are read once.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from rl.learner.config import ScratchModel

ROOT = Path(__file__).parents[2]
MIB = 2**20
SPEC = ScratchModel(hidden_size=512, num_layers=8, intermediate_size=2048, num_heads=8)
PROGRAM = """
import gc, json, re, sys
from pathlib import Path
from rl.learner import export
from rl.learner.config import LearnerConfig
from rl.learner.engine import LearnerEngine, Rendezvous
from rl.losses.config import PpoClip

model, address, rank = sys.argv[1], sys.argv[2], int(sys.argv[3])
export.EXPORT_CHUNK_BYTES = 8 * 2**20
config = LearnerConfig(lr=1e-3, micro_batch_tokens=64, num_ranks=2, zero_stage=3)
place = Rendezvous(rank=rank, num_ranks=2, address=address)
engine = LearnerEngine(config, PpoClip(), model, place, temperature=1.0, seed=0, total_steps=1, dump_dir=model)

def memory(name):
    return int(re.search(rf"^{name}:\\s+(\\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)[1]) / 1024

def grown_mib():
    # By how much the resident memory grows at most while all weights are read once.
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # the peak is what there is now
    before = memory("VmRSS")
    for index in range(engine.exporter.num_chunks):
        chunk = engine.export_chunk(index)
        del chunk
    return memory("VmHWM") - before

engine.export_chunk(0)  # what the first gather sets up once
found = {"chunks": engine.exporter.num_chunks, "by_groups": grown_mib()}
engine.exporter._plan = [sum(engine.exporter._plan, [])]  # all at once: the fault that the measurement must see
print(json.dumps(found | {"at_once": grown_mib()}))
"""

pytestmark = pytest.mark.stack


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from rl.learner.scratch import build_model

    path = tmp_path_factory.mktemp("model")
    build_model(SPEC, str(path), seed=0)
    return path


def published(model_dir: Path) -> list[dict[str, float]]:
    """By rank: how many chunks, and MiB by which the memory grew at most, chunk by chunk and all at once."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{probe.getsockname()[1]}"
    environment = os.environ | {
        "DS_ACCELERATOR": "cpu",
        "LOCAL_RANK": "0",
        "GLOO_SOCKET_IFNAME": "lo",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(ROOT),
        "MALLOC_MMAP_THRESHOLD_": "65536",  # a tensor that is dropped leaves the resident memory at once
    }
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(model_dir), address, str(rank)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            text=True,
        )
        for rank in (0, 1)
    ]
    ended = [rank.communicate(timeout=240) for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0, 0], ended
    return [json.loads(out.splitlines()[-1]) for out, _ in ended]


def test_no_rank_holds_the_model_while_it_is_published(model_dir: Path) -> None:
    whole_mib = (model_dir / "model.safetensors").stat().st_size / MIB
    assert whole_mib > 100
    ranks = published(model_dir)
    assert ranks[0]["chunks"] > 10
    # A chunk gathered, and on the first rank its copy; besides them what gloo needs to send one.
    assert max(rank["by_groups"] for rank in ranks) < whole_mib / 3, ranks
    assert ranks[0]["at_once"] > 1.3 * whole_mib, ranks
