"""Encodes the metrics of /metrics as a request of OTLP, from the same registry, so that both agree.

Imports OpenTelemetry, so it is imported only if something is sent.
"""

import math
import time
from collections.abc import Callable, Iterable, Mapping

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import InstrumentationScope, KeyValue
from opentelemetry.proto.metrics.v1.metrics_pb2 import AggregationTemporality, HistogramDataPoint, Metric
from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.samples import Sample

from bus.telemetry.encoding import SCOPE, resource_of

CUMULATIVE = AggregationTemporality.AGGREGATION_TEMPORALITY_CUMULATIVE
BUCKET = "le"


def measurer(registry: CollectorRegistry, attributes: Mapping[str, str]) -> Callable[[], bytes]:
    """Returns a function that encodes the registry's present values; `attributes` describe this process. Counts start at this call."""
    resource, since_ns = resource_of(attributes), time.time_ns()

    def measure() -> bytes:
        request, now_ns = ExportMetricsServiceRequest(), time.time_ns()
        metrics = request.resource_metrics.add(resource=resource).scope_metrics
        ours = metrics.add(scope=InstrumentationScope(name=SCOPE)).metrics
        for family in registry.collect():
            if family.samples:
                _write(ours.add(name=family.name, description=family.documentation), family, since_ns, now_ns)
        return bytes(request.SerializeToString())

    return measure


def _write(metric: Metric, family: Family, since_ns: int, now_ns: int) -> None:
    if family.type == "histogram":
        metric.histogram.aggregation_temporality = CUMULATIVE
        for labels, samples in _series(family.samples):
            point = metric.histogram.data_points.add(start_time_unix_nano=since_ns, time_unix_nano=now_ns)
            point.attributes.extend(labels)
            _fill(point, samples)
        return
    if family.type == "counter":
        metric.sum.aggregation_temporality, metric.sum.is_monotonic = CUMULATIVE, True
        points = metric.sum.data_points
    else:
        points = metric.gauge.data_points
    for sample in family.samples:
        if sample.name.endswith("_created"):  # OTLP has it in each point
            continue
        point = points.add(time_unix_nano=now_ns, as_double=sample.value)
        point.attributes.extend(_labels(sample))
        if family.type == "counter":
            point.start_time_unix_nano = since_ns


def _series(samples: Iterable[Sample]) -> Iterable[tuple[list[KeyValue], list[Sample]]]:
    """Yields the samples of each combination of labels."""
    found: dict[tuple[tuple[str, str], ...], list[Sample]] = {}
    for sample in samples:
        labels = tuple((name, value) for name, value in sorted(sample.labels.items()) if name != BUCKET)
        found.setdefault(labels, []).append(sample)
    for one in found.values():
        yield _labels(one[0]), one


def _fill(point: HistogramDataPoint, samples: Iterable[Sample]) -> None:
    """Fills a histogram: Prometheus counts all values up to each bound, OTLP those between two bounds."""
    below = 0.0
    for sample in samples:
        if sample.name.endswith("_bucket"):
            bound = float(sample.labels[BUCKET])
            point.bucket_counts.append(int(sample.value - below))
            below = sample.value
            if not math.isinf(bound):
                point.explicit_bounds.append(bound)
        elif sample.name.endswith("_sum"):
            point.sum = sample.value
        elif sample.name.endswith("_count"):
            point.count = int(sample.value)


def _labels(sample: Sample) -> list[KeyValue]:
    labels = []
    for name, value in sample.labels.items():
        if name != BUCKET:
            label = KeyValue(key=name)
            label.value.string_value = value
            labels.append(label)
    return labels
