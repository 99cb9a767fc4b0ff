"""All ranks of a training on this machine: one in this process, or one process each that meet on loopback."""

from __future__ import annotations

import multiprocessing
import os
import queue
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from prm.data import StepRow
from prm.train_config import TrainConfig

Report = Callable[[dict[str, Any]], None]
_POLL_S = 0.5


class RankFailedError(RuntimeError):
    """A process of a training ended with an error."""


def train(
    config: TrainConfig,
    rows: Sequence[StepRow],
    model_dir: str,
    out_dir: Path,
    *,
    held_out: Sequence[StepRow] | None = None,
    report: Report,
) -> None:
    """Train to the end, or on from where an earlier call with this `out_dir` was interrupted.

    Args:
        report: called after each evaluation.

    Raises:
        ValueError: labels, model and settings do not fit together, or `out_dir` is of other settings.
        RankFailedError: one of several ranks failed.
    """
    out_dir.mkdir(parents=True, exist_ok=True)
    check_settings(config, out_dir)
    settings = {"config": config, "rows": list(rows), "model_dir": model_dir, "out_dir": out_dir, "held_out": held_out}
    if config.machine.num_ranks == 1:
        os.environ |= environment(config, 0)
        _rank(0, "", settings, report)
        return
    _train_ranks(config, settings, report)


def check_settings(config: TrainConfig, out_dir: Path) -> None:
    """Raise ValueError when `out_dir` holds a training with other settings."""
    import json

    log = out_dir / "train.json"
    if log.is_file() and json.loads(log.read_text(encoding="utf-8"))["settings"] != config.model_dump(mode="json"):
        raise ValueError(f"{out_dir} holds a training with other settings; name another directory, or remove it")


def environment(config: TrainConfig, rank: int) -> dict[str, str]:
    """What a rank's process is told before it imports torch and DeepSpeed."""
    found = {"OMP_NUM_THREADS": str(config.machine.threads), "LOCAL_RANK": str(rank), "TOKENIZERS_PARALLELISM": "false"}
    if config.machine.device == "cpu":
        found |= {"DS_ACCELERATOR": "cpu", "GLOO_SOCKET_IFNAME": "lo", "LOCAL_RANK": "0"}
    return found


def _rank(rank: int, address: str, settings: Mapping[str, Any], report: Report) -> None:
    from prm.train import Training
    from prm.train_engine import Place

    config: TrainConfig = settings["config"]
    place = Place(rank=rank, num_ranks=config.machine.num_ranks, address=address)
    Training(place=place, report=report, **settings).run()


def _train_ranks(config: TrainConfig, settings: Mapping[str, Any], report: Report) -> None:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{probe.getsockname()[1]}"
    spawn = multiprocessing.get_context("spawn")
    reports: Any = spawn.Queue()
    ranks = [
        spawn.Process(target=_rank_process, args=(rank, address, settings, reports), daemon=True)
        for rank in range(config.machine.num_ranks)
    ]
    for process in ranks:
        process.start()
    try:
        while any(process.is_alive() for process in ranks):
            _pass_on(reports, report)
            failed = [(i, p.exitcode) for i, p in enumerate(ranks) if p.exitcode not in (None, 0)]
            if failed:
                raise RankFailedError(f"rank {failed[0][0]} ended with exit code {failed[0][1]}; its error is above")
        _pass_on(reports, report)
    finally:
        for process in ranks:
            process.kill()
            process.join()


def _pass_on(reports: Any, report: Report) -> None:
    try:
        while True:
            report(reports.get(timeout=_POLL_S))
    except queue.Empty:
        return


def _rank_process(rank: int, address: str, settings: Mapping[str, Any], reports: Any) -> None:
    os.environ |= environment(settings["config"], rank)
    _rank(rank, address, settings, reports.put)
