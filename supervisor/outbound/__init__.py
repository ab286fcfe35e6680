"""From a reply to the relay's acknowledgement."""
