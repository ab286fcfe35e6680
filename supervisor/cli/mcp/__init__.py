"""`hashee-agent mcp`: an MCP server on stdio, by which a program on this host says something and asks people."""
