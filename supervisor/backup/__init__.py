"""Saves and restores an agent's whole state, its keys and its store, in one sealed and signed file (docs/disaster.md)."""
