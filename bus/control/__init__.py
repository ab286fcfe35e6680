"""The control socket, from the side of who asks: its two messages, and the one client of commands and of programs of the owner's own."""
