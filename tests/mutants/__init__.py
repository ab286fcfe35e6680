"""Guards of the product switched off one at a time: each time some test must fail. `python -m tests.mutants [PART|NAME…]`."""
