"""Peak memory of a run over all of its processes.

The figure is proportional set size (PSS): a page shared by k processes counts 1/k in each, so the sum over processes
counts every page once. Adding up resident set sizes would count the libraries and Ray's object store once per process,
several times too much. The kernel walks the page tables for it (about 10 ms per GiB), hence one sample every two
seconds.
"""

from __future__ import annotations

import os
import threading
from types import TracebackType
from typing import Self

import psutil

GIB = 2**30


class MemoryPeak:
    """Samples this process and all of its descendants (Ray's daemons and workers are among them) in a thread.

    with MemoryPeak() as memory: ...; memory.peak_gib
    """

    def __init__(self, *, interval_s: float = 2.0) -> None:
        self._interval_s = interval_s
        self._peak = 0
        self._by_process: dict[str, float] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="memory-peak", daemon=True)

    @property
    def peak_gib(self) -> float:
        """Largest sum seen so far."""
        return self._peak / GIB

    @property
    def by_process(self) -> dict[str, float]:
        """GiB per process name at the moment of the peak: who to look at when the figure is too large."""
        return dict(self._by_process)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        root = psutil.Process(os.getpid())
        while True:
            self._sample(root)
            if self._stop.wait(self._interval_s):
                return

    def _sample(self, root: psutil.Process) -> None:
        total, shares = 0, dict[str, float]()
        for process in (root, *root.children(recursive=True)):
            try:
                with process.oneshot():
                    pss = process.memory_full_info().pss
                    name = process.name()
            except (psutil.NoSuchProcess, psutil.AccessDenied):  # it ended between the listing and the reading
                continue
            total += pss
            shares[name] = round(shares.get(name, 0.0) + pss / GIB, 3)
        if total > self._peak:
            self._peak, self._by_process = total, shares
