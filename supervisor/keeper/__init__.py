"""The process that knows no key: it owns the private Redis, the state directory's lock and the sockets, and starts supervisors."""
