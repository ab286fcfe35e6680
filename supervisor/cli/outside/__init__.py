"""The commands that say something by themselves, as the platform's own command line calls them: send, stream, typing, react, recall."""
