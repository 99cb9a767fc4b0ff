"""Learned step scorers as Ray actors, and their client in the driver.

An actor packs all that waits into forward passes of up to `batch_tokens` positions, so groups that come together share
a pass, and a group's scores come from one version of the model. The client bounds how many groups are open, gives each
a deadline, and checks every answer: one that is not a finite number per step ends the scoring, by name, not the run.

An actor that dies is started again. A frozen model is then as before; one that is trained online goes on from its last
save, and its version says so.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import ray
from ray.exceptions import RayError, RayTaskError

from prm.items import ItemScores, ScoreItem, fault_of, item_of, token_spans
from prm.models.config import DiscriminativePrmConfig, ImplicitPrmConfig, ValuePrmConfig
from prm.steps import Step, cut_steps
from rollout.schema import Group, Metric, ScoreKind, StepScores, StepSpan, Trajectory

T = TypeVar("T")
LearnedConfig = ImplicitPrmConfig | DiscriminativePrmConfig | ValuePrmConfig
_GRACE_S = 5.0
_START_S = 600.0
_MAX_CALLS = 1000
_BATCHES_AT_ONCE = 4  # forward passes planned together: more pack better, fewer answer sooner
_log = logging.getLogger(__name__)


class _ModelActor:
    """Owns one model and the one thread that computes with it. torch is imported there."""

    def __init__(self, config: LearnedConfig, log_path: str, recovery_dir: str) -> None:
        _write_output_to(log_path)
        self._config = config
        self._recovery = Path(recovery_dir)
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="model")
        self._waiting: list[tuple[list[ScoreItem], asyncio.Future[list[ItemScores]]]] = []
        self._is_working = False
        self._work_task: asyncio.Task[None] | None = None
        self._thread.submit(self._load_model).result()

    def _load_model(self) -> None:
        import torch

        from prm.models.scorer import ImplicitScorer, load_scorer

        torch.set_num_threads(self._config.threads)
        self._scorer = load_scorer(self._config)
        self._trainer: Any = None
        if isinstance(self._scorer, ImplicitScorer) and self._scorer.config.online is not None:
            from prm.train_online import OnlineTrainer

            self._trainer = OnlineTrainer(self._scorer)
            if self._recovery.is_dir():
                self._trainer.load(str(self._recovery))

    async def version(self) -> int:
        return self._scorer.version

    async def score(self, items: list[ScoreItem]) -> list[ItemScores]:
        """Scores in order, all of one version."""
        future: asyncio.Future[list[ItemScores]] = asyncio.get_running_loop().create_future()
        self._waiting.append((items, future))
        if not self._is_working:
            self._is_working = True
            self._work_task = asyncio.get_running_loop().create_task(self._work())
        return await future

    async def _work(self) -> None:
        """Score all that waits, in the order it came, many requests at a time."""
        while self._waiting:
            taken = self._take()
            items = [item for request, _ in taken for item in request]
            try:
                answers = await self._compute(self._scorer.score, items)
            except Exception as error:  # noqa: BLE001 - a boundary: each caller gets it
                for _, future in taken:
                    future.set_exception(error)
                continue
            at = 0
            for request, future in taken:
                future.set_result(answers[at : at + len(request)])
                at += len(request)
        self._is_working = False

    def _take(self) -> list[tuple[list[ScoreItem], asyncio.Future[list[ItemScores]]]]:
        room = _BATCHES_AT_ONCE * self._config.batch_tokens
        taken: list[tuple[list[ScoreItem], asyncio.Future[list[ItemScores]]]] = []
        while self._waiting and (not taken or room > 0):
            taken.append(self._waiting.pop(0))
            room -= sum(len(item.token_ids) for item in taken[-1][0])
        return taken

    async def update(self, items: list[ScoreItem], labels: list[float]) -> tuple[int, dict[str, float]]:
        """Train on a batch; the version after it, and metrics. What was asked to be scored before is scored before."""
        if self._trainer is None:
            raise ValueError("this model is frozen; add [prm.online] to train it")
        metrics = await self._compute(self._trainer.update, items, labels)
        return self._scorer.version, metrics

    async def save(self, path: str) -> None:
        """Write the model below `path`, and keep a copy for a restart of this process."""

        def write() -> None:
            self._trainer.save(path)
            aside = self._recovery.with_suffix(".new")
            shutil.rmtree(aside, ignore_errors=True)
            shutil.copytree(path, aside)
            shutil.rmtree(self._recovery, ignore_errors=True)
            aside.rename(self._recovery)

        await self._compute(write)

    async def load(self, path: str) -> int:
        await self._compute(self._trainer.load, path)
        return self._scorer.version

    async def _compute(self, function: Callable[..., T], *args: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, function, *args)


def _write_output_to(log_path: str) -> None:
    """Send what this process and its libraries print to a file."""
    import os
    import sys

    Path(log_path).parent.mkdir(parents=True, exist_ok=True)
    file = os.open(log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.close(file)


class ModelScorerClient:
    """Implements `rl.ports.StepScorer` with a learned model. Belongs to one event loop."""

    def __init__(self, actors: Sequence[Any], config: LearnedConfig, *, version: int = 0) -> None:
        self._actors = tuple(actors)
        self._config = config
        self._load = [0] * len(self._actors)
        self._places = asyncio.Semaphore(config.max_pending_groups)
        self._counts: Counter[str] = Counter()
        self._training: list[Metric] = []
        self._version = version
        self._fault: str | None = None

    @property
    def version(self) -> int:
        """Updates made to the model, as far as this client has heard."""
        return self._version

    @property
    def fault(self) -> str | None:
        """Why the scoring ended for good, or None."""
        return self._fault

    async def score(self, group: Group) -> tuple[StepScores | None, ...]:
        """Step scores in sibling order; None where the service failed on that trajectory.

        A step that the model cannot reach is NaN, and the scores say that they are truncated.
        """
        nothing = (None,) * len(group.trajectories)
        if self._fault is not None:
            return nothing
        cuts = [self._cut(trajectory) for trajectory in group.trajectories]
        items = [
            item_of(t, tuple(step.span for step in steps), messages=group.job.task.prompt, steps=_texts(steps))
            for t, steps in zip(group.trajectories, cuts, strict=True)
        ]
        answers = await self.ask(items)
        if answers is None:
            self._counts["failed"] += len(items)
            return nothing
        return tuple(
            self._checked(group, sibling, item, answer)
            for sibling, (item, answer) in enumerate(zip(items, answers, strict=True))
        )

    async def update(self, trajectories: Sequence[Trajectory], labels: Sequence[float | None]) -> bool:
        """Train the model on a batch with outcomes in [0, 1]; those that are None are left out.

        Returns:
            Whether an update was made. A service that failed is counted in the metrics and costs this update, not the
            run; a loss that is not finite ends the scoring by name.
        """
        judged = [(t, label) for t, label in zip(trajectories, labels, strict=True) if label is not None]
        if not judged or self._fault is not None:
            return False
        items = [item_of(trajectory, ()) for trajectory, _ in judged]
        try:
            self._version, metrics = await self._actors[0].update.remote(items, [label for _, label in judged])
        except RayTaskError as error:
            self._stop(f"training failed: {error.cause}")
            return False
        except RayError:
            self._counts["failed_updates"] += 1
            return False
        self._training += [
            Metric(name=f"prm/{name}", value=value, weight=len(items)) for name, value in metrics.items()
        ]
        return True

    async def save(self, path: str) -> None:
        """Write a model that is trained online, its optimizer and its version below `path`."""
        await self._actors[0].save.remote(path)

    async def load(self, path: str) -> None:
        """Go on from what `save` wrote."""
        self._version = await self._actors[0].load.remote(path)

    def metrics(self) -> list[Metric]:
        """Since the last call: shares of trajectories failed and truncated, mean steps, the version, the training."""
        metrics, self._training = self._training, []
        total = self._counts["scored"] + self._counts["failed"]
        if total:
            for name in ("failed", "truncated"):
                metrics.append(Metric(name=f"prm/{name}", value=self._counts[name] / total, weight=total))
            metrics.append(Metric(name="prm/steps", value=self._counts["steps"] / total, weight=total))
        metrics.append(Metric(name="prm/version", value=float(self._version), reduce="last"))
        metrics.append(Metric(name="prm/stopped", value=float(self._fault is not None), reduce="max"))
        if self._counts["failed_updates"]:
            metrics.append(Metric(name="prm/failed_updates", value=float(self._counts["failed_updates"]), reduce="sum"))
        self._counts.clear()
        return metrics

    def close(self) -> None:
        """End the actors. Safe to call when they are gone already."""
        for actor in self._actors:
            ray.kill(actor)

    def _cut(self, trajectory: Trajectory) -> tuple[Step, ...]:
        config = self._config
        if isinstance(config, ImplicitPrmConfig) and config.granularity == "token":
            return tuple(Step(span=span, text="") for span in token_spans(trajectory))
        return cut_steps(trajectory, config.splitter, include_answer=config.include_answer)

    async def ask(self, items: list[ScoreItem]) -> list[ItemScores] | None:
        """Scores of one group, unchecked; None where the service failed. At most `max_pending_groups` are open."""
        async with self._places:
            return await self._send(items)

    async def _send(self, items: list[ScoreItem]) -> list[ItemScores] | None:
        size = sum(len(item.token_ids) for item in items)
        chosen = min(range(len(self._actors)), key=self._load.__getitem__)
        self._load[chosen] += size
        answer = self._actors[chosen].score.remote(items)
        try:
            answers: list[ItemScores] = await asyncio.wait_for(answer, self._config.deadline_s + _GRACE_S)
        except RayTaskError as error:
            self._stop(f"scoring failed: {error.cause}")
            return None
        except (TimeoutError, RayError):
            return None
        finally:
            self._load[chosen] -= size
        return answers

    def _checked(self, group: Group, sibling: int, item: ScoreItem, answer: ItemScores) -> StepScores | None:
        wrong = fault_of(item, answer)
        if wrong is not None:
            self._stop(f"{wrong}, for sibling {sibling} of group {group.job.group_id}")
            self._counts["failed"] += 1
            return None
        self._counts.update(scored=1, steps=len(item.spans), truncated=int(answer.truncated))
        return StepScores(
            spans=tuple(StepSpan(start=start, end=end) for start, end in item.spans),
            scores=answer.scores,
            kind=ScoreKind(self._config.kind) if isinstance(self._config, ImplicitPrmConfig) else ScoreKind.PROB,
            scorer=self._config.type,
            version=answer.version,
            truncated=answer.truncated,
        )

    def _stop(self, reason: str) -> None:
        """A model that answers nonsense once is not asked again."""
        if self._fault is None:
            self._fault = f"step scorer {self._config.type!r}: {reason}"
            _log.warning("%s; its scores are left out from here on, the run goes on", self._fault)


def _texts(steps: Sequence[Step]) -> tuple[str, ...]:
    return tuple(step.text for step in steps)


def start_model_scorer(
    config: LearnedConfig, make_pool: object = None, *, start_model: str = "", state_dir: str = "runs/prm"
) -> ModelScorerClient:
    """Start the actors on a running Ray and wait until they hold the model.

    Args:
        make_pool: not needed here; every step scorer is started with one.
        start_model: the model that reinforcement learning starts from, for paths that are left out.
        state_dir: gets a log per actor, and the copy that a trained model is restarted from.

    Raises ValueError for a model or a file of labels that cannot be read.
    """
    if isinstance(config, ImplicitPrmConfig):
        config = _with_paths(config, start_model)
    root = Path(state_dir).absolute()
    root.mkdir(parents=True, exist_ok=True)
    recovery = root / "recovery"
    shutil.rmtree(recovery, ignore_errors=True)  # of an earlier start: a resumed run loads its checkpoint instead
    options: dict[str, Any] = {
        "num_cpus": 0,
        "num_gpus": 1 if config.device == "cuda" else 0,
        "max_restarts": -1,
        "max_concurrency": _MAX_CALLS,
        "runtime_env": {"env_vars": _environment(config)},
    }
    remote = ray.remote(_ModelActor).options(**options)
    actors = [
        remote.remote(config, str(root / f"prm_{index}.log"), str(recovery)) for index in range(config.num_actors)
    ]
    try:
        versions = ray.get([actor.version.remote() for actor in actors], timeout=_START_S)
    except RayTaskError as error:
        _kill(actors)
        raise error.cause from error
    except RayError as error:
        _kill(actors)
        raise ValueError(f"the step scorer did not start: {_first_line(error)}; its log is in {root}") from error
    return ModelScorerClient(actors, config, version=int(np.min(versions)))


def _with_paths(config: ImplicitPrmConfig, start_model: str) -> ImplicitPrmConfig:
    """Paths that were left out filled in, and that of the probe as an actor anywhere would find it."""
    filled: dict[str, Any] = {"path": config.path or start_model, "reference": config.reference or start_model}
    if config.online is not None and (probe := config.online.probe) is not None:
        data = Path(probe.data).expanduser().absolute()
        if not data.is_file():
            raise ValueError(f"prm.online.probe.data names {probe.data!r}, and there is no such file; correct the path")
        probe = probe.model_copy(update={"data": str(data)})
        filled["online"] = config.online.model_copy(update={"probe": probe})
    return config.model_copy(update=filled)


def _kill(actors: Sequence[Any]) -> None:
    for actor in actors:
        with contextlib.suppress(RayError):
            ray.kill(actor)


def _first_line(error: BaseException) -> str:
    lines = [line for line in str(error).strip().splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


def _environment(config: LearnedConfig) -> dict[str, str]:
    environment = {
        "OMP_NUM_THREADS": str(config.threads),
        "LOCAL_RANK": "0",
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",
    }
    if isinstance(config, DiscriminativePrmConfig) and config.engine == "vllm":
        environment |= {
            "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",
            "VLLM_NO_USAGE_STATS": "1",
        }
    if config.device == "cpu":
        # glibc would hand the memory of every activation back to the system and fetch it again, page by page.
        keep = {"MALLOC_MMAP_THRESHOLD_": str(2**30), "MALLOC_TRIM_THRESHOLD_": str(2**32)}
        environment |= {"DS_ACCELERATOR": "cpu", "GLOO_SOCKET_IFNAME": "lo"} | keep
    return environment
