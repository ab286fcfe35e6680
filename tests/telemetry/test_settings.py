"""The settings of OpenTelemetry: off by default, refused by name where they are wrong, and the receiver's key shown to nobody."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import structlog

from bus.settings.reader import SettingsError, SettingsReader
from bus.telemetry.settings import (
    Endpoint,
    NowhereToSend,
    TelemetrySettings,
    headers_to_hand_on,
    telemetry_of,
)
from supervisor.cli.worker import worker_environment as alone_environment
from supervisor.observe.metrics import Metrics
from supervisor.observe.tracing import MessageTraces, open_traces
from supervisor.pool.worker_order import worker_environment
from supervisor.settings.supervisor import SupervisorSettings
from supervisor.settings.worker import LoneWorkerSettings
from tests.bus.settings.test_shared_settings import GOOD
from workers.process.logs import worker_log
from workers.process.open_tracing import open_tracing
from workers.process.settings import parse_options
from workers.process.settings import read_settings as read_worker_settings
from workers.process.tracing import JobTracing

pytestmark = pytest.mark.pure

URL = "OTEL_EXPORTER_OTLP_ENDPOINT"
HEADERS = "OTEL_EXPORTER_OTLP_HEADERS"
ON = {URL: "http://127.0.0.1:4318"}
KEY = "key-of-the-receiver"
WITHOUT_THE_EXTRA = "import sys; sys.modules['opentelemetry'] = None; from supervisor.cli import main; main()"


def read(environ: dict[str, str]) -> TelemetrySettings | None:
    settings = read_all(environ)
    assert not isinstance(settings, NowhereToSend), settings.reason
    return settings


def read_all(environ: dict[str, str]) -> TelemetrySettings | NowhereToSend | None:
    reader = SettingsReader(environ)
    settings = telemetry_of(reader)
    reader.finish()
    return settings


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"OTEL_TRACES_SAMPLER": "xray", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc", HEADERS: "no pairs"},
        {**ON, "OTEL_SDK_DISABLED": "TRUE", "OTEL_TRACES_SAMPLER": "xray"},
    ],
)
def test_it_is_off_without_an_endpoint_and_what_the_owner_sets_for_other_things_is_not_judged(
    environ: dict[str, str],
) -> None:
    assert read(environ) is None


def test_what_is_set_is_read_and_the_rest_has_a_default() -> None:
    settings = read(
        {
            URL: "https://otlp.example:444/otlp/",
            HEADERS: f"Authorization=Basic%20{KEY}, x-scope=1",
            "OTEL_SERVICE_NAME": "shop",
            "OTEL_RESOURCE_ATTRIBUTES": "service.name=other,deployment.environment.name=a%2Cb",
            "OTEL_TRACES_SAMPLER": "parentbased_traceidratio",
            "OTEL_TRACES_SAMPLER_ARG": "0.25",
            "OTEL_METRICS_EXPORTER": "none",
        }
    )
    assert settings is not None
    assert settings.endpoint == Endpoint("https", "otlp.example", 444, "/otlp")
    assert settings.headers == {"Authorization": f"Basic {KEY}", "x-scope": "1"}
    assert settings.resource == {"service.name": "shop", "deployment.environment.name": "a,b"}
    assert (settings.ratio, settings.sends_traces, settings.sends_metrics) == (0.25, True, False)
    assert KEY not in repr(settings)
    plain = read(ON)
    assert plain is not None
    assert (plain.ratio, plain.metrics_seconds, plain.resource) == (1.0, 60.0, {"service.name": "hashee-agent"})
    assert read({**ON, "OTEL_TRACES_SAMPLER": "always_off"}).ratio == 0.0  # type: ignore[union-attr] # it is on


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(
            (URL, value)
            for value in ("127.0.0.1:4318", "grpc://h:1", "http://u:p@h", "http://h:0", "http://h/?k=v", "https:///p")
        ),
        *((HEADERS, value) for value in ("key", "=v", "a b=c", "a=b%0d%0aX: y", "n=€")),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "protobuf"),
        ("OTEL_EXPORTER_OTLP_CERTIFICATE", "ca.pem"),
        ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/dev/null"),
        ("OTEL_TRACES_SAMPLER", "one_in_ten"),
        ("OTEL_TRACES_EXPORTER", "oltp"),
        ("OTEL_METRICS_EXPORTER", "oltp"),
        ("OTEL_METRIC_EXPORT_INTERVAL", "10"),
        ("OTEL_RESOURCE_ATTRIBUTES", "a"),
        ("OTEL_SERVICE_NAME", "a\nb"),
        ("OTEL_SDK_DISABLED", "yes"),
    ],
)
def test_what_is_wrong_is_refused_by_name_by_each_process_and_never_shown(name: str, value: str) -> None:
    environ = {**GOOD, **ON, name: value}
    for refuse in (SupervisorSettings.from_environ, LoneWorkerSettings.from_environ, _as_worker):
        with pytest.raises(SettingsError, match=name) as refused:
            refuse(environ)
        assert value not in str(refused.value).replace("http/protobuf", "").replace(name, "") or len(value) < 4


def _as_worker(environ: dict[str, str]) -> object:
    return read_worker_settings(parse_options([]), dict(environ))


def test_a_sampler_without_a_share_between_0_and_1_is_refused() -> None:
    with pytest.raises(SettingsError, match="OTEL_TRACES_SAMPLER_ARG"):
        read({**ON, "OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "2"})


def test_the_receivers_key_reaches_a_worker_also_from_a_file_and_a_credential(tmp_path: Path) -> None:
    (tmp_path / HEADERS.lower()).write_text(f"api-key={KEY}\n", encoding="utf-8")
    named = {f"{HEADERS}_FILE": str(tmp_path / HEADERS.lower())}
    for given in (named, {"CREDENTIALS_DIRECTORY": str(tmp_path)}, {HEADERS: f"api-key={KEY}"}):
        environ = {**GOOD, **ON, **given}
        lent = worker_environment(environ, agent_id=GOOD["HASHEE_AGENT_ID"], redis_url="unix:///r")
        alone = alone_environment(LoneWorkerSettings.from_environ(environ), environ)
        for handed_on in (lent, alone):
            assert handed_on[HEADERS] == f"api-key={KEY}"
            settings = read({name: value for name, value in handed_on.items() if name.startswith("OTEL_")})
            assert settings is not None
            assert settings.headers == {"api-key": KEY}
    assert headers_to_hand_on({}) == {}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json"),
        ("OTEL_TRACES_SAMPLER", "parentbased_jaeger_remote"),
    ],
)
def test_what_the_owners_libraries_can_do_and_we_cannot_is_gone_without_and_said(name: str, value: str) -> None:
    found = read_all({**ON, name: value})
    assert isinstance(found, NowhereToSend)
    assert found.reason.startswith(f"{name} is {value.removeprefix('parentbased_')}, which is not done here: expected")


def test_another_exporter_of_the_owners_is_none_of_ours() -> None:
    settings = read({**ON, "OTEL_TRACES_EXPORTER": "zipkin", "OTEL_METRICS_EXPORTER": "prometheus"})
    assert settings is not None
    assert (settings.sends_traces, settings.sends_metrics) == (False, False)


def without_the_extra(*command: str, **environ: str) -> str:
    """What is said by a command, and by what it starts, where the packages are missing; it ends well."""
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_THE_EXTRA, *command],
        env={**os.environ, **GOOD, **ON, "HASHEE_BASE_URL": "http://127.0.0.1:1", **environ},
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def test_without_its_packages_the_settings_are_whole_and_what_installs_them_is_said(tmp_path: Path) -> None:
    """The endpoint may stand there for the owner's own libraries: it must not keep an agent from its start that has done without so far."""
    said = without_the_extra("check-settings", HASHEE_STATE_DIR=str(tmp_path))
    assert f"OpenTelemetry is not sent: {URL} is set" in said
    assert "pip install 'hashee-agent[otel]'" in said
    assert ON[URL] not in said
    assert without_the_extra("check-settings", "--worker") == ""


def test_supervisor_and_worker_say_it_and_go_on(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("bus.telemetry.settings.find_spec", lambda _package: None)
    with structlog.testing.capture_logs() as logged, open_traces(read_all(ON), Metrics(), "one") as traces:
        assert type(traces) is MessageTraces
    assert [(line["log_level"], line["event"]) for line in logged] == [("warning", "telemetry: not sent")]
    assert "hashee-agent[otel]" in logged[0]["reason"]
    worker = worker_log({}, "worker", level="info", line_format="console")
    settings = read_worker_settings(parse_options([]), {**GOOD, **ON})
    assert type(open_tracing(settings, worker)) is JobTracing
    assert "telemetry: not sent" in capfd.readouterr().err


def test_while_it_is_off_nothing_of_opentelemetry_is_loaded_nor_needed() -> None:
    """But by redis-py, which looks whether it is there."""
    program = (
        "import sys\n"
        "class Missing:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.startswith(('opentelemetry', 'google.protobuf')): raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, Missing())\n"
        "import supervisor.run.app, supervisor.cli.supervisor, workers.__main__, workers.process.worker\n"
        "print(*(name for name in sys.modules if name.startswith(('opentelemetry', 'google.protobuf', 'workers.process.live_'))))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, encoding="utf-8", check=True)
    assert done.stdout.split() == []
