"""Which kinds of key there are (bus/records/keys.py spells them), and whether what stands under one is sealed."""

# Every kind of key stands in one of these two. What is sealed is re-sealed when the store secret is rotated (bus/whole/reseal.py).
SEALED_KINDS = frozenset(
    {
        *("session", "owner", "member", "group", "signed_prekeys", "one_time_prekeys", "quarantined", "seal"),
        *("restored_signed_prekeys", "restored_one_time_prekeys"),
        *("conv", "box", "parked", "placed", "together", "out", "jobs", "replies", "dead", "dead_copy"),
        *("grant_log", "policy", "emitted", "waits", "state", "history", "store", "outside", "timers"),
    }
)
PLAIN_KINDS = frozenset(
    {
        *(
            "gen",
            "epoch",
            "continuity",
            "cursor",
            "first_sync",
            "rate",
            "reclaimer",
            "consumers",
            "presence",
            "live",
            "ledger",
            "probe",
        ),
        *(
            "due",
            "outbox",
            "acks",
            "quarantine",
            "wanted",
            "waiting_for",
            "kept",
            "old",
            "owners",
            "prekey_state",
            "grant_head",
            "last_backup",
        ),
        *("busy", "waiting", "behind", "placements", "alarms", "load", "held", "interrupted", "interrupts", "streams"),
        *("ids", "taken", "sent", "cards", "histories"),
        *("outside_turn", "send_keys"),
        *("budget",),
        *("restoring", "office"),
        *("slot", "slots", "ghosts", "ghost_poll", "standby"),
    }
)
