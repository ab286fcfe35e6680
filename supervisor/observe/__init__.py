"""What can be seen from outside: metrics, health, logs, traces. Changes nothing of what it shows."""
