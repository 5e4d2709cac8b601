"""Spans to a collector by OTLP over HTTP, with OpenTelemetry's own exporter: the optional extra `otlp`.

The exporter batches, and sends in a thread of its own; what the collector does not take in time is dropped by it, and
the gateway does not wait. Headers, certificates and timeouts are the exporter's own variables, OTEL_EXPORTER_OTLP_...,
so no secret stands in the configuration.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gateway import __version__
from gateway.errors import ConfigError
from gateway.store import record as records
from gateway.trace.event import MAGIC
from gateway.trace.journey import Journeys, Span
from gateway.trace.lines import Reading

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

_NS: Final = 1_000_000
_FLUSH_MS: Final = 2000
"""A collector that is away holds up the end of the gateway this long."""


class OtlpExport:
    """Takes the bytes of the trace's files as they are written; `write` is called in the thread that writes them."""

    def __init__(self, endpoint: str, node: str, messages_max: int) -> None:
        """Raises ConfigError where the extra is not installed."""
        self.journeys = Journeys(messages_max)
        self._reading = Reading()
        self._provider = _provider(endpoint, node)
        self._tracer = self._provider.get_tracer("gateway", __version__)

    def write(self, data: bytes) -> None:
        """The next bytes of the trace's files, whole records."""
        if data.startswith(MAGIC):
            self._reading = Reading()
            data = data[len(MAGIC) :]
        for record in records.scan(data):
            for event in self._reading.events_of(record):
                for span in self.journeys.spans(event, self._reading):
                    self._send(span)

    def _send(self, span: Span) -> None:
        from opentelemetry.trace import Status, StatusCode
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        parent = TraceContextTextMapPropagator().extract({"traceparent": span.traceparent})
        sent = self._tracer.start_span(
            span.name, context=parent, attributes=span.attributes, start_time=span.begin_ms * _NS
        )
        if span.error:
            sent.set_status(Status(StatusCode.ERROR, span.error))
        sent.end(end_time=span.end_ms * _NS)

    def close(self) -> None:
        """Send what waits, and end. Blocks for some seconds at most."""
        self._provider.force_flush(_FLUSH_MS)
        self._provider.shutdown()


def _provider(endpoint: str, node: str) -> TracerProvider:
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise ConfigError(
            f"trace.otlp_endpoint: {error.name} is not installed; pip install 'push-gateway[otlp]'"
        ) from None
    resource = Resource.create({"service.name": "push-gateway", "service.instance.id": node})
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint)))
    return provider
