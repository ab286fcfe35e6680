"""A person's device, an agent and a relay, written from docs/protocol.md and docs/protocol-crypto.md alone: nothing of ours is imported.

They are the proof that the two pages are whole. What they cannot do, the pages do not say: it is mended by mending those first.
The tests beside them start the agent and the relay of the product, and compare.
"""
