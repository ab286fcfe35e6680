"""Shows the state of the processes to the outside: metrics, health, logs, traces. It changes nothing of it."""
