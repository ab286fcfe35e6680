"""The bus as a state machine: its rules, a room for each kind."""
