"""The six layers of PROTOCOL §5, pure: values in, values out.

Nothing here does IO, reads a clock or keeps state between calls: time comes in as `now_ms`, randomness as a
`Random`, and a state changes by returning a new value. A failure is an `Unreadable` with one reason of §5.10.
"""
