"""The bus in memory: DESIGN §3 in plain Python, with a clock that a test moves. What is shared lies in one `World`."""
