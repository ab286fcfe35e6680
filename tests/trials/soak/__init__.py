"""Hours in small: steady traffic through real processes, and whether anything grows with it."""
