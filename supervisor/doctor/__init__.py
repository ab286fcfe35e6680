"""`hashee-agent doctor`: checks each part of this installation by itself, and names the command that helps.

Everything here only reads: it takes no lock, writes no file, starts no process that others see, and changes nothing at the relay or in
Redis. It works beside a running agent and without one; what cannot be known is reported as unknown.
"""
