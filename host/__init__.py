"""The machine and not the bus: processes, files, sockets, memory. Imports nothing of ours."""
