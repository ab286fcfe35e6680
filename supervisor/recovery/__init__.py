"""What happened to Redis and to time meanwhile, and what the dead held."""
