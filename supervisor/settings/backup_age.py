"""How old the last backup may become before somebody is told, as the settings say it."""

from bus.settings.reader import Setting, SettingsReader, number

BACKUP_RECIPIENTS = Setting("HASHEE_BACKUP_RECIPIENTS", "age public keys (age1…), with commas between them")
BACKUP_MAX_AGE_HOURS = Setting("HASHEE_BACKUP_MAX_AGE_HOURS", "hours, 0 to 8760 (0 = any age)")
HOURS_BETWEEN_BACKUPS = 36.0
"""The shipped timers make one a night, at another minute each time: one that is missing is told in the afternoon after it."""


def backup_max_age_seconds_of(reader: SettingsReader) -> float:
    """0: any age, which is so where nothing says that backups are made."""
    hours = reader.optional(BACKUP_MAX_AGE_HOURS, number(0, 8760))
    if hours is None:
        hours = HOURS_BETWEEN_BACKUPS if reader.is_given(BACKUP_RECIPIENTS) else 0.0
    return hours * 3600
