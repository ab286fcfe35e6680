"""Conversations with the examples, in which a process is killed at every effect: what the person hears is the same."""
