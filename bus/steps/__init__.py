"""What supervisors and workers do in Redis, each step one typed operation over one script."""
