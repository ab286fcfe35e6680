"""The wire to the relay: frames, payloads, the WebSocket, the REST calls, the slot that allows to be connected. Decides nothing about a message."""
