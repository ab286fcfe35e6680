"""The traps of comparable systems, each with a test that holds it. Which test holds which trap: `test_table.py`."""
