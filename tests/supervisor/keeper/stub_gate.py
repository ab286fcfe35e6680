"""Stands in for the file gate under a keeper: `python stub_gate.py FD` answers each call with its pid and the names in its environment."""

import json
import os
import signal
import socket
import sys


def main() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    listener = socket.socket(fileno=int(sys.argv[1]))
    while True:
        client, _ = listener.accept()
        with client:
            client.sendall(json.dumps([os.getpid(), *sorted(os.environ)]).encode())


main()
