"""The bus in memory, in plain Python, with a clock that its user moves: for owners' tests, `console` and our own tests.

What is shared lies in one `World`. Each class does what the one of bus/steps/ that it names does over scripts in Redis; the same tests
(tests/bus) hold both to the same rules.
"""
