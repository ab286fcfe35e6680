"""What workers and the file gate say to each other: the calls, their proofs, the reasons of a refusal. Without IO."""
