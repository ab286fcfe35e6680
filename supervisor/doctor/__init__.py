"""`hashee-agent doctor`: what could be wrong with this installation, each thing looked at by itself, with the command that helps.

Everything here reads only: no lock is taken, no file written, no process started that others see, nothing changed at the relay or in
Redis. It works beside a running agent and without one, and what cannot be known is told as unknown.
"""
