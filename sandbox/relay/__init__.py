"""The sandbox relay: PROTOCOL §1-3 and §6 on loopback. It sees what the real one sees: ciphertext, ids and times."""
