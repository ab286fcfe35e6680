"""What stands in Redis, in numbers and lines; only reads."""
