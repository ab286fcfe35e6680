"""Keeps workers alive; knows no message."""
