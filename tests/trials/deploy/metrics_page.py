"""docs/metrics.md, written from the metrics themselves: `python -m tests.trials.deploy.metrics_page` (make metrics-page)."""

from collections.abc import Iterator
from pathlib import Path

from prometheus_client.metrics import MetricWrapperBase

from supervisor.files.counts import FileCounts, FileMetrics
from supervisor.observe.gauges import ALL_GAUGES
from supervisor.observe.metrics import Metrics

PAGE = Path(__file__).parents[3] / "docs/metrics.md"
HEAD = """\
# Metrics

Written from the code by `make metrics-page`; a test compares. `http://127.0.0.1:9090/metrics` (`HASHEE_HTTP_HOST`,
`HASHEE_HTTP_PORT`) shows them in Prometheus' text format. No label says who writes to whom: each has a small closed set of values,
or one that is bounded (20 models, 50 tools, 50 MCP servers; then `other`). Alert rules, a scrape configuration and a dashboard: `deploy/monitoring/`.

Counters are of one supervisor: add them up, `sum(rate(…))`. The gauges under "the whole agent" are told alike by every supervisor:
take `max(…)`. What workers away from their supervisor did is in `hashee_job_attempt_total` of every supervisor; what they measure of
models and tools (`business_…`) reaches nobody, since they have no line to a supervisor. `hashee_file_…` are the file gate's: a supervisor shows those of
the gate that keeps its counts in the same state directory, a gate by itself shows them at its own `/metrics`.
"""


def rows() -> Iterator[tuple[str, str, tuple[str, ...], str, bool]]:
    """Name, type, labels, meaning, and whether it is about the whole agent."""
    for metric in vars(Metrics()).values():
        if isinstance(metric, MetricWrapperBase):
            (family,) = metric.describe()
            name = f"{family.name}_total" if family.type == "counter" else family.name
            yield name, family.type, tuple(metric._labelnames), family.documentation, False  # no public name for it
    for metric in FileMetrics(FileCounts).describe():
        name = f"{metric.name}_total" if metric.type == "counter" else metric.name
        yield name, metric.type, tuple(metric.samples[0].labels), metric.documentation, True
    own = {"hashee_slot", "hashee_standby", "hashee_memory_bytes", "hashee_loop_lag_seconds", "hashee_build"}
    own.add("hashee_start_time_seconds")
    for gauge in ALL_GAUGES:
        yield gauge.name, "gauge", (gauge.label,) if gauge.label else (), gauge.text, gauge.name not in own


def names() -> set[str]:
    """Every name that a query may use."""
    found = set()
    for name, kind, *_ in rows():
        found |= {f"{name}_bucket", f"{name}_sum", f"{name}_count"} if kind == "histogram" else {name}
    return found


def page() -> str:
    everything = sorted(rows())
    parts = [HEAD]
    for title, agent in (("Of one supervisor", False), ("Of the whole agent", True)):
        parts += [f"\n## {title}\n\n| name | type | labels | meaning |\n| --- | --- | --- | --- |\n"]
        parts += [
            f"| `{name}` | {kind} | {', '.join(f'`{label}`' for label in labels) or '–'} | {text} |\n"
            for name, kind, labels, text, of_agent in everything
            if of_agent is agent
        ]
    return "".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
