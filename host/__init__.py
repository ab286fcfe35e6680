"""What is about the machine and not about the bus: processes, files, sockets, memory. Imports nothing of ours."""
