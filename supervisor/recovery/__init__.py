"""Watches Redis and time, finds out whether either went back, and offers again what dead processes held."""
