"""The whole store at once: sealed anew, saved, restored."""
