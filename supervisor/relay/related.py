"""What counts of a relation, bounded: relations wait in memory by the thousand, and what the relay says in them has no end by itself."""

from typing import Final

from supervisor.relay.frames import Relation

MOST_KEY_CHARACTERS: Final = 64
"""44 are the base64 of 32 bytes; a longer key is none."""

MOST_SCOPES: Final = 100
MOST_SCOPE_CHARACTERS: Final = 128
"""A scope that is cut matches nothing."""

MOST_STATUS_CHARACTERS: Final = 32


def essence_of(relation: Relation) -> Relation:
    """Who it is, under which keys, with which scopes and status. Name and picture are nobody's concern here."""
    keys = (relation.public_key, relation.signing_public_key)
    public, signing = (key if key is not None and len(key) <= MOST_KEY_CHARACTERS else None for key in keys)
    return Relation(
        relation.user_id,
        public_key=public,
        signing_public_key=signing,
        scopes=tuple(scope[:MOST_SCOPE_CHARACTERS] for scope in relation.scopes[:MOST_SCOPES]),
        status=None if relation.status is None else relation.status[:MOST_STATUS_CHARACTERS],
    )
