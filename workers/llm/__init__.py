"""The language model: asks an endpoint, reads whatever it answers, and remembers what was said. Knows no job but by its thread."""
