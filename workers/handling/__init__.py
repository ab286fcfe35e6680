"""Which function of the owner runs for a job, what it may ask for, and one run of it from its beginning to its end."""
