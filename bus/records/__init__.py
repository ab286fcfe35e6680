"""What lies in Redis: the names of keys, records with their versions, sealing."""
