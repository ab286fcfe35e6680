"""Who somebody is, and under which keys: owners, members, groups, prekeys, sessions."""
