"""From a frame of the relay to a job, or into quarantine."""
