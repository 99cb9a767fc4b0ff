"""The control service of a running training: HTTP on the loopback interface, for whoever holds the run's token.

    GET  /status      step, whether it is paused, what it waits for, settings that may change
    GET  /log         every action so far
    POST /set         {"learner.lr": 1e-5, ...}: checked at once, in force from the next step boundary on
    POST /pause, /resume, /checkpoint, /evaluate, /trace

Every request needs the header `Authorization: Bearer TOKEN`. Address and token are in control.json of the run
directory, which its owner alone may read; `ponder ctl` reads it there. The server runs in a thread of the driver; what
it asks for is done in the thread of the training loop.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar

import uvicorn
from fastapi import Body, Depends, FastAPI, HTTPException
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from launch.live.settings import LiveSettings
from rl.control import read_log
from rl.run import Run

T = TypeVar("T")
START_S = 10.0
ANSWER_S = 30.0
BEARER = HTTPBearer()


class ControlService:
    """Up from `start` to `close`. Raises OSError when no port can be had."""

    def __init__(self, run: Run, settings: LiveSettings, *, place: Path, loop: asyncio.AbstractEventLoop) -> None:
        """`place` is control.json; `loop` the loop that trains."""
        assert run.control is not None
        self._run, self._control, self._settings = run, run.control, settings
        self._place, self._loop = place, loop
        self._token = secrets.token_hex(32)
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._server = uvicorn.Server(
            uvicorn.Config(self._app(), log_level="warning", access_log=False, lifespan="off", server_header=False)
        )
        self._thread = threading.Thread(target=self._serve, name="ponder-control", daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._socket.getsockname()[1]}"

    def start(self) -> None:
        content = json.dumps({"url": self.url, "token": self._token, "process": os.getpid()})
        self._place.unlink(missing_ok=True)
        with os.fdopen(os.open(self._place, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as handle:
            handle.write(content)
        self._thread.start()

    async def close(self) -> None:
        """End the server and remove control.json."""
        self._server.should_exit = True
        await asyncio.to_thread(self._thread.join, START_S)
        self._socket.close()
        self._place.unlink(missing_ok=True)

    def _serve(self) -> None:
        # uvicorn installs signal handlers in the main thread only, so Ctrl-C stays the driver's.
        self._server.run(sockets=[self._socket])

    def _app(self) -> FastAPI:
        def owner(sent: Annotated[HTTPAuthorizationCredentials, Depends(BEARER)]) -> None:
            if not secrets.compare_digest(sent.credentials.encode(), self._token.encode()):
                raise HTTPException(401, "another token; it is in control.json of the run directory")

        app = FastAPI(dependencies=[Depends(owner)], docs_url=None, redoc_url=None, openapi_url=None)

        @app.get("/status")
        def status() -> dict[str, Any]:
            return self._in_loop(self._status)

        @app.get("/log")
        def log() -> list[Any]:
            return list(read_log(self._control.log))

        @app.post("/set")
        def change(settings: Annotated[dict[str, Any], Body()]) -> dict[str, Any]:
            return self._in_loop(lambda: self._change(settings))

        @app.post("/{order}")
        def order(order: str) -> dict[str, Any]:
            return self._in_loop(lambda: self._order(order))

        return app

    def _status(self) -> dict[str, Any]:
        run = self._run
        return {
            "step": run.step,
            "num_steps": run.loop.num_steps,
            "version": run.version,
            "saved_step": run.saved_step,
            "is_paused": self._control.is_paused,
            "waits": [f"{wait.owner} for {wait.target}" for wait in run.waits.under_way()],
            "settings": self._settings.now(),
        }

    def _change(self, settings: dict[str, Any]) -> dict[str, Any]:
        try:
            self._settings.check(settings)
        except ValueError as error:
            raise HTTPException(422, str(error)) from error
        self._control.ask(settings)
        return {"accepted": settings, "after_step": self._run.step + 1}

    def _order(self, order: str) -> dict[str, Any]:
        if order == "evaluate" and self._run.evaluator is None:
            raise HTTPException(422, "this run has no evaluation")
        try:
            self._control.order(order, self._run.step)  # type: ignore[arg-type]
        except ValueError as error:
            raise HTTPException(404, str(error)) from error
        return {"accepted": order, "step": self._run.step}

    def _in_loop(self, call: Callable[[], T]) -> T:
        """Run it between two awaits of the training loop, so that it sees one moment of the run."""

        async def work() -> T:
            return call()

        return asyncio.run_coroutine_threadsafe(work(), self._loop).result(ANSWER_S)
