"""The worker's real runner under everything that may happen to a thread, by seed: a model of people, workers that die, versions, timers."""
