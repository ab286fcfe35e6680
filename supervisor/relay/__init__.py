"""The wire to the relay and nothing else: frames, the WebSocket, the REST calls, the slot that allows to be connected."""
