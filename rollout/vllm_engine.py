"""vLLM behind `rollout.engine.Engine`: one thread owns the engine and steps it while there is work.

The event loop hands over requests and commands through one queue and gets answers back as futures. The thread drains
the queue between two engine steps, so a command such as a weight update never meets a half-finished step, and requests
of many jobs share every step. Between the start and the finish of a weight update nothing is stepped.

Weight versions are vLLM's own labels of the sampled tokens. Asynchronous scheduling is off: with it a step may hand out
tokens that were drawn before an update and label them with the version after it.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import queue
import threading
from collections.abc import Callable, Sequence
from typing import Any

from vllm import EngineArgs, LLMEngine, SamplingParams, TokensPrompt
from vllm.config import ReasoningConfig, WeightTransferConfig
from vllm.exceptions import VLLMClientError
from vllm.outputs import RequestOutput

from rollout import weight_transfer
from rollout.config import RolloutConfig
from rollout.engine import Completion, EngineDeadError, Request, RequestError
from rollout.schema import Float32Array
from rollout.seat import GpuUse
from rollout.vllm_requests import completion_of, prompt_logprobs, sampling_params

BYTES_PER_GIB = 1024**3
FIRST = -1  # priority of what must not wait behind a queue of responses: smaller is earlier
Answers = list[tuple["asyncio.Future[Any]", Any]]


Work = Callable[[asyncio.Future[Any]], None]  # done on the thread; answers the future it is given


class VllmEngine:
    """One vLLM engine in this process. Start and use it on one event loop."""

    def __init__(self, version: int) -> None:
        self._loop = asyncio.get_running_loop()
        self._inbox: queue.SimpleQueue[tuple[Work, asyncio.Future[Any]] | None] = queue.SimpleQueue()
        self._gate = threading.Lock()  # orders putting work in and closing the inbox for good
        self._death: EngineDeadError | None = None
        self._names = itertools.count()
        self._version = version
        self._closes_thinking = False
        self._keeps_cache = False
        self._gives_up = True
        self._max_model_len = 0
        # Counted by the thread, read by the event loop.
        self.num_prompt_tokens = 0
        self.num_cached_tokens = 0
        self._thread: threading.Thread | None = None
        # Touched by the thread alone.
        self._engine: Any = None
        self._waiting: dict[str, asyncio.Future[RequestOutput]] = {}
        self._updating_to: int | None = None
        self._is_dropped = False  # started over, and no update has begun since
        self._label = str(version)  # of the weights that are loaded

    @classmethod
    async def start(
        cls,
        config: RolloutConfig,
        model_dir: str,
        *,
        seed: int,
        version: int = 0,
        marks: tuple[str, str] = ("<think>", "</think>"),
        gpu: GpuUse = GpuUse(),  # noqa: B008 - frozen
    ) -> VllmEngine:
        """Return when the model is loaded. `marks` open and close the thinking, for `thinking_cap = "engine"`.

        Raises what vLLM raises when it cannot start.
        """
        self = cls(version)
        self._closes_thinking = config.thinking_cap == "engine"
        self._keeps_cache = config.in_flight == "keep"
        self._gives_up = gpu.transfer == "object_store"
        ready = self._loop.create_future()
        self._thread = threading.Thread(
            target=self._run,
            args=(lambda: _build(config, model_dir, seed, marks, gpu), ready),
            name="engine",
            daemon=True,
        )
        self._thread.start()
        self._max_model_len = await ready
        return self

    # -------------------------------------------------------------------------------------------- for the event loop

    @property
    def max_model_len(self) -> int:
        return self._max_model_len

    @property
    def version(self) -> int:
        return self._version

    @property
    def closes_thinking(self) -> bool:
        return self._closes_thinking

    async def complete(self, request: Request) -> Completion:
        """Sample one continuation. Cancelling the call aborts the request."""
        try:
            params = sampling_params(request)
        except (ValueError, VLLMClientError) as error:
            raise RequestError(f"the engine refused a request: {error}") from error
        return completion_of(await self._submit(request.prompt_ids, params))

    async def probe(self, sequences: Sequence[Sequence[int]]) -> list[Float32Array]:
        """Log-probability of each token given its prefix, at temperature 1, under the current weights.

        Returns one array per sequence, as long as the sequence. The first token has no prefix; its entry is 0. Prompts
        with log-probabilities never read the prefix cache, so nothing computed under older weights can answer.
        """
        # A sampled token is not wanted, but vLLM has no request without one.
        params = SamplingParams(max_tokens=1, temperature=0.0, prompt_logprobs=0, detokenize=False)
        outputs = await asyncio.gather(*(self._submit(ids, params, priority=FIRST) for ids in sequences))
        return [prompt_logprobs(output) for output in outputs]

    async def start_update(self, version: int) -> None:
        """Stop stepping and prepare for the tensors of `version`; requests in flight wait."""
        await self._do(lambda: self._start_update(version))

    async def join(self, meeting: dict[str, Any]) -> None:
        """Meet the sender of weights that come by way of the GPUs."""
        await self._do(lambda: self._rpc("init_weight_transfer_engine", init_info=meeting))

    async def load_chunk(self, chunk: weight_transfer.Chunk | dict[str, Any]) -> None:
        """Load one chunk of the started update: its tensors, or what announces those that come another way."""
        info = chunk if isinstance(chunk, dict) else {"weights": chunk}
        await self._do(lambda: self._rpc("update_weights", update_info=info))

    async def finish_update(self, version: int) -> None:
        """Switch to the new weights and step again.

        Requests in flight recompute their keys and values, so that every later token is drawn from the new weights
        alone; with `in_flight = "keep"` they go on from what the old weights made. New requests never do.
        """
        await self._do(lambda: self._finish_update(version))
        self._version = version

    async def sleep(self) -> None:
        """Give the memory of weights, keys and values back; the next update wakes the engine. Safe to call again.

        Ends the engine while a request is in flight.
        """
        await self._do(self._sleep)

    async def start_over(self) -> None:
        """Drop every request and whatever was loaded halfway: the next update may be of any version, an older one too.

        For weights that go back to a checkpoint. Nothing is stepped before that update.
        """
        await self._do(self._start_over)
        self._version = 0

    async def reported_version(self) -> int:
        """The version that the engine itself reports."""
        return int(await self._do(lambda: self._engine.get_weight_version()))

    async def close(self) -> None:
        """Stop the thread after the step in progress. Unfinished requests fail."""
        with self._gate:
            self._inbox.put(None)
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join)

    async def _submit(self, prompt_ids: Sequence[int], params: SamplingParams, *, priority: int = 0) -> RequestOutput:
        name = str(next(self._names))
        ids = [int(i) for i in prompt_ids]
        future = self._post(lambda future: self._add(name, ids, params, priority, future))
        try:
            return await future
        except asyncio.CancelledError:
            self._post(lambda _: self._abort(name))
            raise

    async def _do(self, command: Callable[[], Any]) -> Any:
        """Run a command on the thread between two steps and return its result. Its failure ends the engine."""

        return await self._post(lambda future: self._answer([(future, command())]))

    def _post(self, work: Work) -> asyncio.Future[Any]:
        """Hand `work` to the thread, which may run it before this returns; so it is given the future it answers."""
        future = self._loop.create_future()
        with self._gate:
            if self._death is not None:
                raise self._death
            self._inbox.put((work, future))
        return future

    # -------------------------------------------------------------------------------------------- for the thread

    def _run(self, build: Callable[[], LLMEngine], ready: asyncio.Future[int]) -> None:
        try:
            self._engine = build()
            self._engine.set_weight_version(str(self._version))
        except BaseException as error:  # noqa: BLE001 - raised to the caller of `start`
            self._answer([(ready, error)])
            return
        self._answer([(ready, int(self._engine.model_config.max_model_len))])
        reason = "it was closed"
        try:
            while self._drain():
                self._deliver(self._engine.step())
        except Exception as error:  # the boundary of the thread: every waiter learns the cause
            logging.getLogger(__name__).exception("the engine thread failed")
            reason = f"{type(error).__name__}: {error}"
        self._die(reason)

    def _drain(self) -> bool:
        """Do all the work in the inbox, waiting for some while there is nothing to step. False: stop."""
        while True:
            idle = not self._waiting or self._updating_to is not None
            try:
                item = self._inbox.get(block=idle)
            except queue.Empty:
                return True
            if item is None:
                return False
            work, future = item
            try:
                work(future)
            except Exception as error:
                self._answer([(future, EngineDeadError(f"the engine stopped: {type(error).__name__}: {error}"))])
                raise

    def _add(
        self, name: str, ids: list[int], params: SamplingParams, priority: int, future: asyncio.Future[Any]
    ) -> None:
        prompt = TokensPrompt(prompt_token_ids=ids)
        if self._keeps_cache:  # nothing that other weights have cached fits
            prompt["cache_salt"] = self._label if self._updating_to is None else str(self._updating_to)
        try:
            self._engine.add_request(name, prompt, params, priority=priority)
        except Exception as error:  # noqa: BLE001 - one bad request must not end the engine
            self._answer([(future, RequestError(f"the engine refused a request: {type(error).__name__}: {error}"))])
            return
        self._waiting[name] = future

    def _abort(self, name: str) -> None:
        if self._waiting.pop(name, None) is not None:
            self._engine.abort_request([name])

    def _deliver(self, outputs: list[RequestOutput]) -> None:
        finished = [o for o in outputs if o.finished]
        self.num_prompt_tokens += sum(len(o.prompt_token_ids) for o in finished)
        self.num_cached_tokens += sum(o.num_cached_tokens or 0 for o in finished)
        self._answer([(self._waiting.pop(o.request_id), o) for o in finished])

    def _answer(self, answers: Answers) -> None:
        """Resolve futures on the event loop, all of one step in one wake-up."""
        if answers:
            self._loop.call_soon_threadsafe(_resolve, answers)

    def _die(self, reason: str) -> None:
        """Fail everything that waits, and everything that comes later."""
        death = EngineDeadError(f"the engine stopped: {reason}")
        waiting = list(self._waiting.values())
        self._waiting.clear()
        with self._gate:
            self._death = death
            while not self._inbox.empty():
                item = self._inbox.get()
                if item is not None:
                    waiting.append(item[1])
        self._answer([(future, death) for future in waiting])

    def _sleep(self) -> None:
        if self._waiting:
            raise RuntimeError(
                f"an engine that takes turns with the learner must have no request in flight, got {len(self._waiting)}"
            )
        if not self._engine.is_sleeping():
            self._engine.sleep(level=2)  # nothing is kept: the next update brings all weights

    def _start_update(self, version: int) -> None:
        current = int(self._engine.get_weight_version())
        if version < current:
            raise ValueError(f"a weight update must not go back: version {version} after {current}")
        if self._engine.is_sleeping():
            self._engine.wake_up(["weights"])  # keys and values follow when the learner's copies are gone
        self._rpc("start_weight_update")
        self._updating_to, self._is_dropped = version, False

    def _finish_update(self, version: int) -> None:
        if version != self._updating_to:
            raise ValueError(f"finish of weight version {version}, but the update started is {self._updating_to}")
        self._rpc("finish_weight_update")
        if self._engine.is_sleeping():
            self._engine.wake_up(["kv_cache"])
        self._engine.set_weight_version(str(version))
        self._label = str(version)
        if not self._keeps_cache:
            self._engine.reset_prefix_cache(reset_running_requests=True)
        self._updating_to = None

    def _start_over(self) -> None:
        self._engine.abort_request(list(self._waiting))
        gone = RequestError("the request was dropped: the weights go back to a checkpoint")
        self._answer([(future, gone) for future in self._waiting.values()])
        self._waiting.clear()
        self._engine.reset_prefix_cache(reset_running_requests=True)  # versions will come again with other weights
        if self._updating_to is not None and not self._is_dropped:
            if self._gives_up:  # vLLM's own backends finish half an update without asking
                self._rpc("update_weights", update_info={"weights": []})
            self._rpc("finish_weight_update")
        self._label, self._updating_to, self._is_dropped = "0", 0, True
        self._engine.set_weight_version(self._label)

    def _rpc(self, method: str, **kwargs: Any) -> None:
        self._engine.collective_rpc(method, kwargs=kwargs)


# ------------------------------------------------------------------------------------------------ to and from vLLM


def _build(config: RolloutConfig, model_dir: str, seed: int, marks: tuple[str, str], gpu: GpuUse) -> LLMEngine:
    weight_transfer.register()
    # When a prompt is split over steps vLLM winds the request's own generator back, which a CPU generator cannot do:
    # there, prompts stay whole.
    on_cpu = config.device == "cpu"
    args = EngineArgs(
        model=model_dir,
        dtype=config.dtype,
        seed=seed,
        max_num_seqs=config.max_num_seqs,
        max_num_batched_tokens=config.max_num_batched_tokens,
        max_model_len=config.max_model_len,
        kv_cache_memory_bytes=int(config.kv_cache_gib * BYTES_PER_GIB),
        block_size=config.block_size,
        enforce_eager=config.enforce_eager,
        enable_prefix_caching=True,
        enable_chunked_prefill=False if on_cpu else None,
        async_scheduling=False,
        scheduling_policy="priority",
        logprobs_mode="processed_logprobs",
        generation_config="vllm",
        weight_transfer_config=WeightTransferConfig(
            backend=weight_transfer.BACKEND if gpu.transfer == "object_store" else gpu.transfer
        ),
        disable_log_stats=True,
    )
    if config.tensor_parallel > 1:  # its workers are Ray actors on the engine's bundles, see `launch/placement.py`
        args.tensor_parallel_size, args.distributed_executor_backend = config.tensor_parallel, "ray"
    if gpu.memory_share is not None:
        args.gpu_memory_utilization = gpu.memory_share
    args.enable_sleep_mode = gpu.sleeps
    if config.thinking_cap == "engine":
        args.reasoning_config = ReasoningConfig(reasoning_start_str=marks[0], reasoning_end_str=marks[1])
    return LLMEngine.from_engine_args(args)


def _resolve(answers: Answers) -> None:
    for future, answer in answers:
        if future.done():  # its caller was cancelled
            continue
        if isinstance(answer, BaseException):
            future.set_exception(answer)
        else:
            future.set_result(answer)
