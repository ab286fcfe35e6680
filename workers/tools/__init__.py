"""What a language model may call: tools from wherever they come, and who is asked before one runs. Knows no endpoint and no server."""
