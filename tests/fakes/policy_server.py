"""A small OpenAI-compatible server on loopback: replies by a function, misbehaves when told to."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Reply = Callable[[dict[str, Any], int], tuple[int, Any]]  # request body and its number -> status and reply


class ChatServer(ThreadingHTTPServer):
    """Collects requests and their headers."""

    daemon_threads = True

    def __init__(self, reply: Reply) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.reply = reply
        self.requests: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.guard = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"


class _Handler(BaseHTTPRequestHandler):
    server: ChatServer

    def do_GET(self) -> None:
        self._send(200, {"data": [{"id": "tiny"}]})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        with self.server.guard:
            number = len(self.server.requests)
            self.server.requests.append(body)
            self.server.keys.append(self.headers.get("authorization"))
        self._send(*self.server.reply(body, number))

    def _send(self, status: int, value: Any) -> None:
        content = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@contextmanager
def chat_server(reply: Reply) -> Iterator[ChatServer]:
    server = ChatServer(reply)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def completion(content: str, *, finish: str = "stop", tokens: int = 10, **message: Any) -> dict[str, Any]:
    """A chat completion; `reasoning_tokens` among the keywords goes to the usage."""
    usage: dict[str, Any] = {"completion_tokens": tokens}
    if "reasoning_tokens" in message:
        usage["completion_tokens_details"] = {"reasoning_tokens": message.pop("reasoning_tokens")}
    return {"choices": [{"message": {"content": content, **message}, "finish_reason": finish}], "usage": usage}


def solve(body: dict[str, Any], number: int) -> tuple[int, Any]:
    """Adds what the last message asks to add; without thinking it is wrong half of the time."""
    left, _, right = body["messages"][-1]["content"].partition("+")
    total = int(left) + int(right.partition("=")[0])
    kwargs = body.get("chat_template_kwargs", {})
    if kwargs.get("enable_thinking") is False:
        return 200, completion(str(total + body["seed"] % 2), tokens=2)
    return 200, completion(str(total), tokens=12, reasoning_tokens=10, reasoning_content="carry the one")
