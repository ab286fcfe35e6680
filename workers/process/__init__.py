"""The worker process: how it starts, takes jobs while it has slots, shows that it lives, and leaves."""
