"""Commands and streams to and from Redis, wherever it is."""
