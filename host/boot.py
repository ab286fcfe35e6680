"""Which boot of the host this is."""

from pathlib import Path

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def boot_id() -> str:
    """Another text after each start of the host. Raises OSError where there is no /proc."""
    return BOOT_ID.read_text(encoding="ascii").strip()
