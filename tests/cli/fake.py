"""A gateway on loopback, in a thread, for commands that open sockets of their own: just enough to answer them."""

from __future__ import annotations

import threading
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import orjson
import trio
import trio_websocket

from gateway.wire.push_v1 import SUBPROTOCOL


class FakeControl:
    """Answers HTTP calls with what `answers` holds for "METHOD /path", and writes down what it was asked."""

    def __init__(self) -> None:
        self.answers: dict[str, tuple[int, Any]] = {}
        self.calls: list[tuple[str, Any]] = []
        self.headers: dict[str, str] = {}
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, self))
        self._thread = threading.Thread(target=partial(self._server.serve_forever, 0.01))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> FakeControl:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    def __init__(self, control: FakeControl, *arguments: Any) -> None:
        self._control = control
        super().__init__(*arguments)

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        call = f"{self.command} {self.path}"
        self._control.calls.append((call, orjson.loads(body) if body else None))
        self._control.headers = dict(self.headers)
        missing = {"code": "subscription_not_found", "message": "there is no such subscription", "temporary": False}
        status, answer = self._control.answers.get(call, (404, missing))
        content = answer if isinstance(answer, bytes) else orjson.dumps(answer)
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_PUT = do_POST = do_DELETE = _answer  # noqa: N815  # the library's names

    def log_message(self, format: str, *arguments: Any) -> None:
        pass


class FakeData:
    """Speaks push.v1.json: stores what has a good topic, delivers `deliveries` to whoever subscribes to `orders`."""

    def __init__(self) -> None:
        self.deliveries: list[str] = []
        """The messages of one frame, as JSON text."""
        self.published: list[dict[str, Any]] = []
        self.durabilities: list[str] = []
        self.acked: list[list[int]] = []
        self.headers: dict[bytes, bytes] = {}
        self.port = 0
        self._listening = threading.Event()
        self._token: trio.lowlevel.TrioToken | None = None
        self._scope = trio.CancelScope()
        self._thread = threading.Thread(target=partial(trio.run, self._serve))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> FakeData:
        self._thread.start()
        self._listening.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        assert self._token is not None
        self._token.run_sync_soon(self._scope.cancel)
        self._thread.join()

    async def _serve(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        with self._scope:
            async with trio.open_nursery() as nursery:
                server = await nursery.start(
                    partial(trio_websocket.serve_websocket, self._accept, "127.0.0.1", 0, ssl_context=None)
                )
                self.port = server.port
                self._listening.set()

    async def _accept(self, request: trio_websocket.WebSocketRequest) -> None:
        self.headers = dict(request.headers)
        ws = await request.accept(subprotocol=SUBPROTOCOL)
        await ws.send_message('{"op":"welcome","connection":"c-1"}')
        try:
            while True:
                await self._handle(ws, orjson.loads(await ws.get_message()))
        except trio_websocket.ConnectionClosed:
            pass

    async def _handle(self, ws: trio_websocket.WebSocketConnection, frame: dict[str, Any]) -> None:
        answer: dict[str, Any] = {"op": "ok", "id": frame.get("id")}
        match frame["op"]:
            case "publish":
                answer = {"op": "published", "id": frame["id"], "durability": frame["durability"]}
                answer["results"] = [self._store(message) for message in frame["messages"]]
                self.durabilities.append(frame["durability"])
            case "subscribe" if frame["subscription"] != "orders":
                error = {"code": "subscription_not_found", "message": "there is none", "temporary": False}
                answer = {"op": "error", "id": frame["id"], **error}
            case "ack":
                self.acked += frame["ranges"]
                return
            case "hello":
                return
        await ws.send_message(orjson.dumps(answer).decode())
        if frame["op"] == "subscribe" and answer["op"] == "ok":
            messages = ",".join(self.deliveries)
            await ws.send_message(
                '{"op":"messages","subscription":"orders","lease_ms":30000,"messages":[' + messages + "]}"
            )

    def _store(self, message: dict[str, Any]) -> dict[str, Any]:
        if ".." in message["topic"]:
            return {"error": {"code": "bad_topic", "message": "it has an empty word", "temporary": False}}
        self.published.append(message)
        return {"id": message.get("id", "own"), "position": len(self.published)}
