"""Cuts a relation down to what we use of it: relations wait in memory by the thousand, and the relay's strings have no bound."""

from typing import Final

from supervisor.relay.frames import Relation

MOST_KEY_CHARACTERS: Final = 64
"""44 are the base64 of 32 bytes; a longer key is none."""

MOST_SCOPES: Final = 100
"""What is beyond is left out: a scope that is not known here allows nothing."""

MOST_SCOPE_CHARACTERS: Final = 128
"""A scope that is cut matches nothing, so it allows nothing."""

MOST_STATUS_CHARACTERS: Final = 32
"""The longest that we know, `suspended`, has 9; one that is cut is none of them."""


def essence_of(relation: Relation) -> Relation:
    """Returns the relation with its user, keys, scopes and status, each bounded; without name and picture, which we do not use."""
    keys = (relation.public_key, relation.signing_public_key)
    public, signing = (key if key is not None and len(key) <= MOST_KEY_CHARACTERS else None for key in keys)
    return Relation(
        relation.user_id,
        public_key=public,
        signing_public_key=signing,
        scopes=tuple(scope[:MOST_SCOPE_CHARACTERS] for scope in relation.scopes[:MOST_SCOPES]),
        status=None if relation.status is None else relation.status[:MOST_STATUS_CHARACTERS],
    )
