"""Files that people and handlers send each other: sealed and opened here, carried as ciphertext by the file gate; no key leaves the worker."""
