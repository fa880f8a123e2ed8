"""Where spans and metrics go: over OTLP where the environment says so, and into a file of JSON lines.

Only here is OpenTelemetry's SDK set up; the parts themselves speak to its API. The standard variables are
obeyed: OTEL_EXPORTER_OTLP_ENDPOINT and its kin, OTEL_TRACES_EXPORTER, OTEL_METRICS_EXPORTER,
OTEL_TRACES_SAMPLER, OTEL_SERVICE_NAME, OTEL_RESOURCE_ATTRIBUTES, OTEL_BSP_*. Where they name no collector and
there is no `--trace-file`, the SDK is not even loaded.
"""

import logging
import os
import sys
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Final, NamedTuple

from diplex_cli.failures import UsageError
from diplex_cli.process import leashed

if TYPE_CHECKING:
    from opentelemetry.sdk.resources import Resource

log = logging.getLogger(__name__)

FLUSH_WITHIN: Final = 1.0
"""Seconds that a process waits at its end for collectors to take what is left. `up` drains three stages of
processes within ten, one after the other."""
_FILE_EVERY: Final = 500.0
"""Milliseconds between two looks for spans to append."""
_QUIET_FOR: Final = 60.0
"""Seconds between two lines about a collector that does not answer."""


class Road(NamedTuple):
    """One way out: how to send what is left on it and end it, and how to end it at once."""

    flush: Callable[[], None]
    abandon: Callable[[], None]


def add_trace_file(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--trace-file", metavar="FILE", help="append every request's spans to it, as lines of JSON"
    )


def check(args: Namespace) -> None:
    """Say on stderr what cannot be exported, and see that the trace file can be written.

    Raises:
        UsageError: it cannot.
    """
    for signal in ("TRACES", "METRICS"):
        if reason := _otlp(signal, os.environ)[1]:
            print(f"note: {reason}", file=sys.stderr)
    if args.trace_file:
        try:
            Path(args.trace_file).open("ab").close()
        except OSError as error:
            reason = error.strerror or str(error)
            raise UsageError(
                f"--trace-file: {args.trace_file} cannot be written: {reason}. Mend: another FILE"
            ) from None


@contextmanager
def exported(args: Namespace, service: str, instance: str = "") -> Iterator[None]:
    """Export spans and metrics inside the `with` block; at its end, what is left.

    Args:
        args: the command's, with `add_trace_file`'s option.
        service: the resource's `service.name`, where the environment names none.
        instance: its `service.instance.id`; "": none.
    Raises:
        UsageError: the trace file cannot be written.
    """
    if not leashed():  # `up` has checked already
        check(args)
    spans, metrics = _otlp("TRACES", os.environ)[0], _otlp("METRICS", os.environ)[0]
    if not (spans or metrics or args.trace_file):
        yield
        return
    roads: list[Road] = []
    resource = _resource(service, instance)
    with _quiet():
        if spans or args.trace_file:
            roads += _spans_to(resource, otlp=spans, file=args.trace_file)
        if metrics:
            roads.append(_metrics_to(resource))
        try:
            yield
        finally:
            _end(roads)


def _spans_to(resource: "Resource", *, otlp: bool, file: str | None) -> Iterator[Road]:
    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    provider = TracerProvider(resource=resource, shutdown_on_exit=False)

    if otlp:
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter

        collector = OTLPSpanExporter()
        provider.add_span_processor(batches := BatchSpanProcessor(collector))
        yield Road(batches.shutdown, collector.shutdown)
    if file:
        from diplex_cli.trace_file import TraceFile

        lines = TraceFile(file)
        provider.add_span_processor(batches := BatchSpanProcessor(lines, schedule_delay_millis=_FILE_EVERY))
        yield Road(batches.shutdown, lines.shutdown)
    trace.set_tracer_provider(provider)


def _metrics_to(resource: "Resource") -> Road:
    from opentelemetry import metrics
    from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader

    collector = OTLPMetricExporter()
    reader = PeriodicExportingMetricReader(collector)
    provider = MeterProvider([reader], resource, shutdown_on_exit=False)
    metrics.set_meter_provider(provider)
    return Road(provider.shutdown, collector.shutdown)


def _otlp(signal: str, environment: Mapping[str, str]) -> tuple[bool, str]:
    """Whether a signal goes out over OTLP; or else, if it was asked for, why not."""
    if environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False, ""
    exporter = environment.get(f"OTEL_{signal}_EXPORTER", "").strip()
    endpoint = _said(environment, signal, "ENDPOINT")
    if exporter == "none" or not (exporter or endpoint):
        return False, ""
    if exporter not in ("", "otlp"):
        return False, f"OTEL_{signal}_EXPORTER={exporter} is not known. Mend: otlp or none"
    protocol = _said(environment, signal, "PROTOCOL")
    if protocol not in ("", "grpc"):
        return False, (
            f"OTEL_EXPORTER_OTLP_PROTOCOL={protocol}: diplex speaks OTLP over gRPC, so no "
            f"{signal.lower()} are exported. Mend: grpc, and the collector's port for it (4317)"
        )
    if find_spec("opentelemetry.sdk") is None or find_spec("opentelemetry.exporter") is None:
        return False, f"no {signal.lower()} are exported: pip install 'diplex[server]' brings what that needs"
    return True, ""


def _said(environment: Mapping[str, str], signal: str, what: str) -> str:
    own = environment.get(f"OTEL_EXPORTER_OTLP_{signal}_{what}", "").strip()
    return own or environment.get(f"OTEL_EXPORTER_OTLP_{what}", "").strip()


def _resource(service: str, instance: str) -> "Resource":
    from importlib.metadata import version

    from opentelemetry.sdk.resources import OTELResourceDetector, Resource

    own = {"service.name": service, "service.version": version("diplex")}
    if instance:
        own["service.instance.id"] = instance
    # What the environment says of itself goes first.
    return Resource.create({**own, **OTELResourceDetector().detect().attributes})


def _end(roads: Sequence[Road]) -> None:
    """Let collectors take what is left, all at once, for as long as a process may take to end."""
    deadline = time.monotonic() + FLUSH_WITHIN
    flushing = [(Thread(target=road.flush, name="flush", daemon=True), road) for road in roads]
    for thread, _ in flushing:
        thread.start()
    for thread, road in flushing:
        thread.join(max(0.0, deadline - time.monotonic()))
        if thread.is_alive():
            road.abandon()


@contextmanager
def _quiet() -> Iterator[None]:
    """What the SDK logs, a dead collector above all, is one line a minute and never a traceback."""
    logger, handler = logging.getLogger("opentelemetry"), _OncePerMinute()
    logger.addHandler(handler)
    logger.propagate = False
    try:
        yield
    finally:
        logger.propagate = True
        logger.removeHandler(handler)


class _OncePerMinute(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._last = -_QUIET_FOR
        self._more = 0

    def emit(self, record: logging.LogRecord) -> None:
        now = time.monotonic()
        if now - self._last < _QUIET_FOR:
            self._more += 1
            return
        more = f" ({self._more} more such lines since)" if self._more else ""
        self._last, self._more = now, 0
        log.warning("serving goes on: %s%s", " ".join(record.getMessage().split()), more)
