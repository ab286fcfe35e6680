"""OpenTelemetry for supervisor and workers: makes spans of a message's way, and sends them. Off without settings.

`settings` and `traces` import nothing of OpenTelemetry, and only they are loaded while it is off. No content comes here: spans and
metrics hold names, ids of messages and conversations, counts and times, as log lines do.
"""
