"""Reads OpenTelemetry's own standard settings, so that no library of it reads the environment.

While it is off only the endpoint and OTEL_SDK_DISABLED are read, since the owner's code may use these names for itself. For the same
reason a valid value that we do not support is no error: nothing is sent, and the log says so (`NowhereToSend`). Only invalid values are refused.
"""

import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import unquote

from bus.settings.reader import Malformed, Setting, SettingsReader, number, one_of, whole_number
from bus.settings.url_parts import HOST, PORT, host_of, netloc, port_of

ENDPOINT_IS = "http://host:port or https://host:port, with a path where the receiver has one"
PAIRS_ARE = "name=value, with commas between more of them, in the values percent-encoded"
SAMPLERS = ("always_on", "always_off", "traceidratio")
OTHER_SAMPLERS = ("jaeger_remote", "xray")
OTHER_PROTOCOLS = ("grpc", "http/json")
EXPORTERS = ("otlp", "none", "console", "prometheus", "zipkin")
"""OpenTelemetry's own values. If a setting lists several exporters, we send if ours is among them."""

ENDPOINT = Setting("OTEL_EXPORTER_OTLP_ENDPOINT", ENDPOINT_IS)
HEADERS = Setting("OTEL_EXPORTER_OTLP_HEADERS", PAIRS_ARE, secret=True)
CERTIFICATE = Setting("OTEL_EXPORTER_OTLP_CERTIFICATE", "the absolute path of a readable PEM file with certificates")
PROTOCOL = Setting("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf", default="http/protobuf")
SERVICE_NAME = Setting("OTEL_SERVICE_NAME", "a name of up to 255 characters", default="hashee-agent")
RESOURCE_ATTRIBUTES = Setting("OTEL_RESOURCE_ATTRIBUTES", PAIRS_ARE)
EXPORTER_IS = "otlp or none (console, prometheus and zipkin are none here)"
TRACES_EXPORTER = Setting("OTEL_TRACES_EXPORTER", EXPORTER_IS, default="otlp")
METRICS_EXPORTER = Setting("OTEL_METRICS_EXPORTER", EXPORTER_IS, default="otlp")
SAMPLER = Setting(
    "OTEL_TRACES_SAMPLER",
    "always_on, always_off or traceidratio, also with parentbased_ before it",
    default="parentbased_always_on",
)
SAMPLER_ARGUMENT = Setting("OTEL_TRACES_SAMPLER_ARG", "a number from 0 to 1", default="1")
METRICS_INTERVAL = Setting("OTEL_METRIC_EXPORT_INTERVAL", "milliseconds, 1000 to 3600000", default="60000")
DELAY = Setting("OTEL_BSP_SCHEDULE_DELAY", "milliseconds, 100 to 60000", default="5000")
DISABLED = Setting("OTEL_SDK_DISABLED", "true or false", default="false")
ALL = (
    *(ENDPOINT, HEADERS, CERTIFICATE, PROTOCOL, SERVICE_NAME, RESOURCE_ATTRIBUTES, TRACES_EXPORTER, METRICS_EXPORTER),
    *(SAMPLER, SAMPLER_ARGUMENT, METRICS_INTERVAL, DELAY, DISABLED),
)

PACKAGES = ("opentelemetry.sdk", "opentelemetry.proto", "opentelemetry.exporter.otlp.proto.common")
WITHOUT_EXTRA = (
    f"{ENDPOINT.name} is set and the packages of the extra otel are not installed: pip install 'hashee-agent[otel]'"
)
DEFAULT_PORTS = {"http": 80, "https": 443}
_URL = re.compile(rf"(https?)://{HOST}{PORT}(/[A-Za-z0-9._~!$&'()*+,;=:@%/-]*)?")
_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}")
_HEADER_VALUE = re.compile(r"[\x20-\x7e\x80-\xff]{0,8000}")


@dataclass(frozen=True)
class Endpoint:
    """The receiver's address. `path`: the common part for all signals, without a slash at its end."""

    scheme: str
    host: str
    port: int
    path: str = ""

    @property
    def shown(self) -> str:
        """Returns the address for people, without the path, which may hold a secret."""
        return f"{self.scheme}://{netloc(self.host, self.port)}"


@dataclass(frozen=True, kw_only=True)
class TelemetrySettings:
    """What is sent and where. `ratio`: the share of messages whose traces are sent. `ca`: a file, None for the machine's certificates.

    `timeout_seconds`: for each step of a request (connect, send, hear an answer). `most_waiting`: spans of some 700 bytes: those of a few
    busy seconds.
    """

    endpoint: Endpoint
    headers: Mapping[str, str] = field(repr=False)
    ca: str | None
    resource: Mapping[str, str]
    sends_traces: bool
    sends_metrics: bool
    ratio: float
    metrics_seconds: float
    delay_seconds: float = 5.0
    timeout_seconds: float = 5.0
    most_waiting: int = 4096


@dataclass(frozen=True)
class NowhereToSend:
    """An endpoint is set, perhaps for the owner's own libraries, but we cannot send there. `reason`: for people, without the owner's values."""

    reason: str


def telemetry_of(reader: SettingsReader) -> TelemetrySettings | NowhereToSend | None:
    """Returns what to send and where, NowhereToSend if we cannot, None while it is off. Faults are noted in `reader`."""
    if (
        reader.environ.get(DISABLED.name, "").strip()
        and reader.required(DISABLED, one_of(("true", "false")), "") == "true"
    ):
        return None
    if not reader.is_given(ENDPOINT):
        return None
    if not all(map(_is_installed, PACKAGES)):
        return NowhereToSend(WITHOUT_EXTRA)
    protocol = reader.required(PROTOCOL, one_of(("http/protobuf", *OTHER_PROTOCOLS)), "")
    sampler = reader.required(SAMPLER, _sampler, "always_on")
    for setting, value, others in ((PROTOCOL, protocol, OTHER_PROTOCOLS), (SAMPLER, sampler, OTHER_SAMPLERS)):
        if value in others:
            return NowhereToSend(f"{setting.name} is {value}, which is not done here: expected {setting.expectation}")
    ratio = (
        reader.required(SAMPLER_ARGUMENT, number(0, 1), 1.0)
        if sampler == "traceidratio"
        else float(sampler == "always_on")
    )
    return TelemetrySettings(
        endpoint=reader.required(ENDPOINT, _endpoint, Endpoint("http", "", 0)),
        headers=reader.optional(HEADERS, _headers) or {},
        ca=reader.optional(CERTIFICATE, _certificates),
        resource={
            **(reader.optional(RESOURCE_ATTRIBUTES, _pairs) or {}),
            "service.name": reader.required(SERVICE_NAME, _name, ""),
        },
        sends_traces=reader.required(TRACES_EXPORTER, one_of(EXPORTERS), "") == "otlp",
        sends_metrics=reader.required(METRICS_EXPORTER, one_of(EXPORTERS), "") == "otlp",
        ratio=ratio,
        metrics_seconds=reader.required(METRICS_INTERVAL, whole_number(1000, 3_600_000), 0) / 1000,
        delay_seconds=reader.required(DELAY, whole_number(100, 60_000), 0) / 1000,
    )


def headers_to_hand_on(environ: Mapping[str, str]) -> dict[str, str]:
    """Returns the variable with the headers for a worker, if they are in a file or credential that it may not see; else nothing."""
    if environ.get(HEADERS.name, "").strip():
        return {}
    text = SettingsReader(environ).optional(HEADERS, str)
    return {} if text is None else {HEADERS.name: text}


def _endpoint(text: str) -> Endpoint:
    found = _URL.fullmatch(text)
    if found is None:
        raise Malformed
    scheme, host, port, path = found.groups()
    try:
        return Endpoint(scheme, host_of(host), port_of(port, DEFAULT_PORTS[scheme]), (path or "").rstrip("/"))
    except ValueError:
        raise Malformed from None


def _is_installed(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except ModuleNotFoundError:  # its parent package is missing
        return False


def _pairs(text: str) -> dict[str, str]:
    pairs = {}
    for part in filter(None, map(str.strip, text.split(","))):
        name, equals, value = part.partition("=")
        if not equals or not name.strip():
            raise Malformed
        pairs[name.strip()] = unquote(value.strip())
    return pairs


def _headers(text: str) -> dict[str, str]:
    headers = _pairs(text)
    if not all(_HEADER_NAME.fullmatch(name) and _HEADER_VALUE.fullmatch(value) for name, value in headers.items()):
        raise Malformed
    return headers


def _certificates(text: str) -> str:
    if not Path(text).is_absolute():
        raise Malformed
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(text)
    except (OSError, ssl.SSLError):
        raise Malformed from None
    return text


def _name(text: str) -> str:
    if len(text) > 255 or not text.isprintable():
        raise Malformed
    return text


def _sampler(text: str) -> str:
    name = text.lower().removeprefix("parentbased_")
    if name not in SAMPLERS + OTHER_SAMPLERS:
        raise Malformed
    return name
