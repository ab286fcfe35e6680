"""What `hashee-agent files` is told: the agent's token, and no other secret than the key of its callers."""

import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from bus.settings.places import absolute_path, state_dir_of
from bus.settings.reader import Malformed, Setting, SettingsReader
from bus.settings.shared import agent_id_of
from bus.settings.url_parts import HOST, PORT, host_of, port_of
from supervisor.settings import parsers
from supervisor.settings.keeper import LogSettings, log_settings_of
from supervisor.settings.secrets import Secret
from supervisor.settings.table import (
    AGENT_TOKEN,
    BASE_URL,
    FILES_CERT,
    FILES_CERT_KEY,
    FILES_KEY,
    FILES_LISTEN,
    UPLOAD_HOSTS,
)
from supervisor.settings.way import Way, find_way

CERT_WITHOUT_KEY = "HASHEE_FILES_CERT and HASHEE_FILES_CERT_KEY together, a certificate and its key"
MOST_HOSTS = 32


@dataclass(frozen=True)
class FilesSettings:
    """`state_dir`: where a supervisor on this host writes the callers' key; None where that is given. `way`: to the relay.

    `listen`: host and port, for a gate by itself. `tls`: what it serves by; None in the clear.
    """

    agent_id: str
    agent_token: Secret[str]
    base_url: str
    way: Way
    upload_hosts: frozenset[str]
    files_key: Secret[bytes] | None
    state_dir: Path | None
    listen: tuple[str, int]
    tls: ssl.SSLContext | None
    log: LogSettings

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> "FilesSettings":
        """Raises SettingsError."""
        reader = SettingsReader(environ)
        agent_id = agent_id_of(reader)
        base_url = reader.required(BASE_URL, parsers.base_url, "")
        files_key = reader.optional(FILES_KEY, parsers.secret_bytes)
        settings = cls(
            agent_id=agent_id,
            agent_token=reader.required(AGENT_TOKEN, parsers.agent_token, Secret("")),
            base_url=base_url,
            way=find_way(reader, base_url),
            upload_hosts=upload_hosts_of(reader),
            files_key=files_key,
            state_dir=state_dir_of(reader, agent_id) if files_key is None else None,
            listen=files_listen_of(reader),
            tls=files_tls_of(reader),
            log=log_settings_of(reader),
        )
        reader.finish()
        return settings


def files_address(environ: Mapping[str, str]) -> tuple[str, int, bool]:
    """Where a gate by itself listens, and whether it serves TLS. Raises SettingsError."""
    reader = SettingsReader(environ)
    host, port = files_listen_of(reader)
    has_tls = reader.is_given(FILES_CERT)
    reader.finish()
    return host, port, has_tls


def upload_hosts_of(reader: SettingsReader) -> frozenset[str]:
    """Returns the hosts, each as host or host:port, that presigned addresses may name whatever their address is."""
    return reader.optional(UPLOAD_HOSTS, _hosts) or frozenset()


def files_listen_of(reader: SettingsReader) -> tuple[str, int]:
    """Returns where a gate by itself listens."""
    return reader.required(FILES_LISTEN, _listen, ("", 0))


def files_tls_of(reader: SettingsReader) -> ssl.SSLContext | None:
    """Returns what a gate by itself serves by; None in the clear. What is wrong stands in `reader` then."""
    certificate, key = reader.optional(FILES_CERT, absolute_path), reader.optional(FILES_CERT_KEY, absolute_path)
    if certificate is None and key is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    if certificate is None or key is None:
        reader.refuse(Setting(FILES_CERT.name, CERT_WITHOUT_KEY))
        return None
    try:
        context.load_cert_chain(certificate, key, password=lambda: b"")  # or it would ask for one on the terminal
    except (OSError, ValueError):
        reader.refuse(Setting(FILES_CERT.name, CERT_WITHOUT_KEY))
    return context


def _listen(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not colon or not port.isascii() or not port.isdecimal() or int(port) > 65_535:
        raise Malformed
    parsers.host(host.strip("[]"))
    return host.strip("[]"), int(port)


def _hosts(text: str) -> frozenset[str]:
    names = [name.strip().lower() for name in text.split(",") if name.strip()]
    for name in names:
        found = re.fullmatch(rf"{HOST}{PORT}", name)
        try:
            if found is None or len(names) > MOST_HOSTS:
                raise Malformed
            host_of(found[1]), port_of(found[2], 443)
        except ValueError:
            raise Malformed from None
    return frozenset(names)
