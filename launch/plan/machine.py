"""What a machine can do: cores and memory as found, GPUs as asked of their driver, speed measured or looked up.

Peaks of GPUs are their makers' figures for dense bfloat16 and memory bandwidth; of a CPU they are measured here, in a
fifth of a second. No heavy library is loaded.
"""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import psutil

GIB = 2**30
# name as the driver gives it -> (10^12 operations a second, 10^9 bytes a second); longer names first
GPU_PEAKS = {
    "B200": (2250.0, 8000.0),
    "H200": (989.0, 4800.0),
    "H100": (989.0, 3350.0),
    "A100": (312.0, 2039.0),
    "L40S": (362.0, 864.0),
    "A10": (125.0, 600.0),
    "L4": (121.0, 300.0),
    "RTX 4090": (165.0, 1008.0),
    "V100": (125.0, 900.0),
}
UNKNOWN_GPU = (100.0, 500.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """One machine, or what each machine of a cluster has."""

    cores: int
    memory_gib: float  # free now
    gpu: str = ""  # name, empty without one
    num_gpus: int = 0
    gpu_memory_gib: float = 0.0  # of each
    cpu_flops: float = 0.0  # of one core, float32
    cpu_bandwidth: float = 0.0  # bytes a second

    @property
    def gpu_peaks(self) -> tuple[float, float]:
        """Operations and bytes a second of one GPU."""
        flops, bandwidth = next((peak for name, peak in GPU_PEAKS.items() if name in self.gpu), UNKNOWN_GPU)
        return flops * 1e12, bandwidth * 1e9


def this_machine() -> Machine:
    gpu, num_gpus, gpu_memory = gpus()
    cores = len(psutil.Process().cpu_affinity())
    return Machine(
        cores=cores,
        memory_gib=psutil.virtual_memory().available / GIB,
        gpu=gpu,
        num_gpus=num_gpus,
        gpu_memory_gib=gpu_memory,
        cpu_flops=_flops() / cores,
        cpu_bandwidth=_bandwidth(),
    )


def gpus() -> tuple[str, int, float]:
    """Name, number and GiB of each of the GPUs; the smallest where they differ."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return "", 0, 0.0
    query = [program, "--query-gpu=name,memory.total", "--format=csv,noheader,nounits"]
    found = subprocess.run(query, capture_output=True, text=True, check=False, timeout=30)
    rows = [line.rpartition(",") for line in found.stdout.splitlines() if "," in line] if found.returncode == 0 else []
    if not rows:
        return "", 0, 0.0
    name, _, memory = min(rows, key=lambda row: float(row[2]))
    return name.strip(), len(rows), float(memory) / 1024


def _flops() -> float:
    """Of all cores together, which the BLAS uses; a multiplication with its addition counts twice."""
    a = np.ones((384, 384), dtype=np.float32)
    return 2 * 384**3 / _fastest(lambda: a @ a)


def _bandwidth() -> float:
    source = np.ones(2**23, dtype=np.float32)  # 32 MiB, larger than a cache
    target = np.empty_like(source)
    return 2 * source.nbytes / _fastest(lambda: np.copyto(target, source))


def _fastest(work: Callable[[], object]) -> float:
    """Seconds of the fastest of some calls: a busy machine only ever makes one slower."""
    best, ends = float("inf"), time.perf_counter() + 0.1
    while time.perf_counter() < ends or best == float("inf"):
        started = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - started)
    return best
