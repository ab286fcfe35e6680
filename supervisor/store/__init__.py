"""How a command reaches the store of an agent that runs or does not, and changes its secret."""
