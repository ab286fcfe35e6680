"""What supervisor and workers say to each other: records, sealing, key names, Lua operations, streams."""
