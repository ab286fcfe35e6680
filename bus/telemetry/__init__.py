"""OpenTelemetry for supervisor and workers: what is told of a message's way, and how that leaves the process. Off without settings.

`settings` and `traces` import nothing of OpenTelemetry, and are all that is loaded while it is off. No content ever comes here: spans and
metrics are made of names, ids of messages and conversations, counts and times, as log lines are.
"""
