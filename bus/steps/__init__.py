"""Each step of a message as one typed operation over one script."""
