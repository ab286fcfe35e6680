"""What outlives a run of a handler: its thread and what it waits for, the conversation's state and history, the store, and where they are kept."""
