"""The file gate: the process that has the agent's token and no key. Passes sealed files between workers and relay, and keeps nothing of them."""
