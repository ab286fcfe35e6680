"""A person's device and client, written from docs/protocol.md and docs/protocol-crypto.md alone: it imports nothing of ours.

It is the proof that the two pages are whole. What it cannot do, they do not say; so it is mended by mending them first.
The tests beside it start the agent and the relay, and compare.
"""
