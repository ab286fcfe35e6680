"""Of workers/mcp/."""
