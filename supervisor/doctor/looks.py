"""Every look of the doctor, by its subject, in the order in which they are told."""

from collections.abc import Mapping

from supervisor.doctor.agent import look_at_agent
from supervisor.doctor.disk import look_at_disk
from supervisor.doctor.files import look_at_files
from supervisor.doctor.redis import look_at_redis
from supervisor.doctor.relay import look_at_relay
from supervisor.doctor.rounds import Look
from supervisor.doctor.settings import look_at_settings

LOOKS: Mapping[str, Look] = {
    "settings": look_at_settings,
    "files": look_at_files,
    "relay": look_at_relay,
    "redis": look_at_redis,
    "disk": look_at_disk,
    "agent": look_at_agent,
}
