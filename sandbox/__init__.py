"""A local relay, simulated people and a demo, for first steps, tests and load. Nothing of the agent imports it."""
