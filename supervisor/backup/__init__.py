"""Backup and restore of an agent's whole state: its keys and what Redis holds of it, in one sealed and signed file (docs/disaster.md)."""
