"""What a handler says in a conversation, what it asks there, and how both are sent."""
