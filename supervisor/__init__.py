"""The process that holds the connection and every key, the keeper that watches over it, and the command line."""
