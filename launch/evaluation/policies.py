"""From what `--policy` names to something that samples: a run, a model directory, a model's name, or a server."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from launch.evaluation.sampling import Policy
from launch.evaluation.settings import EvalSettings, run_of
from launch.model_dir import check_model
from launch.rundir import RunDirectory
from rollout.endpoint import Endpoint, EndpointPolicy
from rollout.schema import Group, Job
from rollout.token_counts import TokenCounts, counts_of

WEIGHTS = ("*.safetensors", "pytorch_model*.bin", "*.gguf")
FINGERPRINTED = 1 << 20  # bytes at either end of a weight file
MODEL_FILES = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalModel:
    """A model directory, and the run it belongs to."""

    path: Path
    run: Path | None
    name: str


def is_endpoint(policy: str) -> bool:
    return policy.startswith(("http://", "https://"))


def find_model(policy: str) -> LocalModel:
    """A run's newest model, a model directory, or a model by its name on the hub.

    A name is looked up in the local cache first; it is downloaded only where HF_HUB_OFFLINE is not set. Raises
    ValueError with what is wrong.
    """
    path = Path(policy)
    if path.is_dir():
        run = run_of(path)
        if run is not None and run.resolve() == path.resolve():
            path = RunDirectory.open(run).newest_model()
        check_model(path, setting="--policy")
        return LocalModel(path=path, run=run, name=policy.rstrip("/"))
    return LocalModel(path=_from_hub(policy), run=None, name=policy)


def fingerprint(model: Path) -> str:
    """Hash of what a model directory says: its small files whole, of each weight file its size and both ends."""
    whole = hashlib.blake2b(digest_size=16)
    for name in MODEL_FILES:
        if (model / name).is_file():
            whole.update(name.encode() + (model / name).read_bytes())
    for path in sorted(found for pattern in WEIGHTS for found in model.glob(pattern)):
        size = path.stat().st_size
        with path.open("rb") as handle:
            whole.update(f"{path.name}/{size}".encode() + handle.read(FINGERPRINTED))
            handle.seek(max(0, size - FINGERPRINTED))
            whole.update(handle.read())
    return whole.hexdigest()


class EnginesPolicy:
    """Engines of our own: the generator and the template of training."""

    def __init__(self, pool: Any, identity: Mapping[str, Any], num_places: int) -> None:
        self._pool = pool
        self.identity = identity
        self.num_places = num_places

    async def sample(self, job: Job) -> tuple[Group, tuple[TokenCounts, ...]]:
        group = await self._pool.generate(job)
        return group, tuple(map(counts_of, group.trajectories))


class ServerPolicy:
    """A server of somebody else's."""

    def __init__(self, client: EndpointPolicy, identity: Mapping[str, Any], num_places: int) -> None:
        self.sample = client.sample
        self.identity = identity
        self.num_places = num_places


@contextlib.asynccontextmanager
async def engines(
    model: LocalModel, settings: EvalSettings, identity: Mapping[str, Any], *, logs: Path
) -> AsyncIterator[Policy]:
    """Engines serving a model, inside a cluster session."""
    from launch.build import in_thread  # imports Ray, which must wait for a session
    from rollout.actor import start_engines

    rollout = settings.rollout
    pool = await in_thread(_start(start_engines, settings, model, logs))
    try:
        # Twice what the engines decode at a time: the next sample is there when one ends.
        yield EnginesPolicy(pool, identity, 2 * rollout.max_num_seqs * rollout.num_engines)
    finally:
        pool.close()


@contextlib.asynccontextmanager
async def server(endpoint: Endpoint, settings: EvalSettings, *, num_places: int) -> AsyncIterator[Policy]:
    """A server, found to answer."""
    client = EndpointPolicy(endpoint, settings.format, max_connections=num_places)
    try:
        async with asyncio.timeout(endpoint.timeout_s):
            await client.start()
        identity = {
            "kind": "endpoint",
            "url": endpoint.url,
            "model": client.model,
            "fields": {mode: dict(fields) for mode, fields in endpoint.fields.items()},
        }
        yield ServerPolicy(client, identity, num_places)
    finally:
        await client.close()


def api_key(name: str | None) -> str | None:
    """The key in the environment variable `name`. Raises ValueError if it is named and not set."""
    if name is None:
        return None
    if not os.environ.get(name):
        raise ValueError(f"--api-key-env names {name}, which is not set in the environment; export it")
    return os.environ[name]


def _start(start_engines: Any, settings: EvalSettings, model: LocalModel, logs: Path) -> Any:
    def start() -> Any:
        return start_engines(
            settings.rollout, settings.format, str(model.path.resolve()), log_dir=str(logs), seed=settings.seed
        )

    return start


def _from_hub(name: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    is_offline = os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "TRUE", "YES", "ON")
    try:
        return Path(snapshot_download(name, local_files_only=is_offline))
    except (HFValidationError, LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        offline = ", and HF_HUB_OFFLINE is set, so only the local cache was searched" if is_offline else ""
        raise ValueError(
            f"--policy must be a run, a model directory, the name of a model or the URL of a server, got {name!r}: no "
            f"such directory, and no model of that name was found{offline} ({type(error).__name__})"
        ) from error
