"""What comes back older, tried on real processes: `python -m tests.drills` (`make drills`)."""
