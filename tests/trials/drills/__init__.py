"""What comes back older, tried on real processes: `python -m tests.trials.drills` (`make drills`)."""
