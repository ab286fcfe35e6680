"""The two small protocols between processes: the control socket, and the line between keeper and supervisor."""
