"""All checks of the doctor by subject, in the order in which their findings are shown."""

from collections.abc import Mapping

from supervisor.doctor.agent import look_at_agent
from supervisor.doctor.backups import look_at_backups
from supervisor.doctor.descriptors import look_at_descriptors
from supervisor.doctor.disk import look_at_disk
from supervisor.doctor.file_gate import look_at_file_gate
from supervisor.doctor.files import look_at_files
from supervisor.doctor.limits import look_at_limits
from supervisor.doctor.redis import look_at_redis
from supervisor.doctor.relay import look_at_relay
from supervisor.doctor.rounds import Look
from supervisor.doctor.settings import look_at_settings
from supervisor.doctor.spool import look_at_spool
from supervisor.doctor.versions import look_at_versions

LOOKS: Mapping[str, Look] = {
    "settings": look_at_settings,
    "files": look_at_files,
    "relay": look_at_relay,
    "redis": look_at_redis,
    "file gate": look_at_file_gate,
    "spool": look_at_spool,
    "disk": look_at_disk,
    "descriptors": look_at_descriptors,
    "limits": look_at_limits,
    "versions": look_at_versions,
    "agent": look_at_agent,
    "backup": look_at_backups,
}
