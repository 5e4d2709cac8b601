"""Spans by OTLP, taken by a collector of the test's own over real HTTP."""

from __future__ import annotations

import builtins
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import trio
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from gateway.errors import ConfigError
from gateway.trace.otlp import OtlpExport
from tests.conftest import StartNode
from tests.edge.raw import open_http
from tests.trace.told import PARENT


class Collector:
    """Answers every export with 200, and keeps its spans."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.resources: list[dict[str, str]] = []
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:  # the library's name
                request = ExportTraceServiceRequest.FromString(self.rfile.read(int(self.headers["Content-Length"])))
                for resource in request.resource_spans:
                    collector.resources.append({a.key: a.value.string_value for a in resource.resource.attributes})
                    collector.spans += [span for scope in resource.scope_spans for span in scope.spans]
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *arguments: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}/v1/traces"

    def __enter__(self) -> Collector:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as collector:
        yield collector


async def test_a_published_message_is_seen_in_the_producer_s_trace(
    start_node: StartNode, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
    node = await start_node({"trace.otlp_endpoint": collector.url, "trace.flush_ms": 1})
    async with open_http(node.control_address) as control:
        await control.request("PUT", "/v1/subscriptions/orders", b'{"topics":["shop.>"]}')
    async with open_http(node.address) as http:
        await http.post("/v1/topics/shop.paid/messages", b'{"secret":1}', {"Traceparent": PARENT})
        await http.post("/v1/topics/shop.paid/messages", b"2")
        pulled = (await http.post("/v1/subscriptions/orders/pull", b'{"wait_ms":1000}')).json
        settle = b'{"lease":"%b","ack":[[1,2]]}' % pulled["lease"].encode()
        await http.post("/v1/subscriptions/orders/settle", settle)
    with trio.fail_after(10):
        while len(collector.spans) < 2:
            await trio.sleep(0.01)
    publish, deliver = sorted(collector.spans, key=lambda span: -len(span.name))
    assert (publish.name, deliver.name) == ("publish shop.paid", "deliver orders")
    for span in (publish, deliver):
        assert (span.trace_id.hex(), span.parent_span_id.hex()) == (PARENT[3:35], PARENT[36:52])
        assert 0 < span.start_time_unix_nano <= span.end_time_unix_nano
    attributes: dict[str, Any] = {a.key: a.value for a in deliver.attributes}
    assert attributes["gateway.outcome"].string_value == "acked"
    assert attributes["messaging.destination.name"].string_value == "shop.paid"
    assert collector.resources[0]["service.name"] == "push-gateway"
    assert "secret" not in str(collector.spans)


async def test_a_collector_that_is_away_holds_up_nobody(
    start_node: StartNode, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = collector.url.replace("/v1/traces", "").rpartition(":")[0] + ":9/v1/traces"
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
    node = await start_node({"trace.otlp_endpoint": url, "trace.flush_ms": 1})
    async with open_http(node.address) as http:
        answer = await http.post("/v1/topics/shop.paid/messages", b"1", {"Traceparent": PARENT})
        assert answer.status == 201


def test_without_the_extra_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def refuse(name: str, *more: Any) -> Any:
        if name.startswith("opentelemetry"):
            raise ModuleNotFoundError(name=name)
        return real(name, *more)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(ConfigError, match=r"pip install 'push-gateway\[otlp\]'"):
        OtlpExport("http://127.0.0.1:1/v1/traces", "node", 10)
