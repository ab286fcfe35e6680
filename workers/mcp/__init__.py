"""MCP servers as places where tools come from: each connection a task of its own, what a server may send bounded, what it may do decided by the owner. Knows no model and no chat."""
