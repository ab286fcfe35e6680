"""Opens the store of an agent for a command, whether the agent runs or not, and rotates its secret."""
