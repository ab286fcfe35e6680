"""The guards of supervisor/: what it decides by itself, before Redis or the relay is asked."""

from __future__ import annotations

from tests.mutants.mutant import FOLDERS, Part, of


def module(name: str) -> str:
    return f"supervisor/{name}.py"


def tests(*names: str) -> tuple[str, ...]:
    return tuple(f"tests/{name}.py" if "/" in name else f"tests/supervisor/test_{name}.py" for name in names)


INTAKE = (
    *of(
        module("payloads"), tests("payloads", "hops"),
        ("hops_are_no_truth_values", "if isinstance(value, bool) or not isinstance(value, int | float):", "if not isinstance(value, int | float):"),
        ("hops_are_not_negative", "max(value, 0)", "value"),
        ("hops_are_bounded", "int(min(max(value, 0), MOST_HOPS))", "int(max(value, 0))"),
        ("the_former_name_of_text", "if \"text\" not in renamed and", "if"),
        ("only_known_kinds", "return kind if kind in (\"h2a\", \"group\", \"h2h\") else \"h2a\"", "return kind or \"h2a\""),
        ("a_place_has_a_reply_of_its_own", "f\"{job_id}\\x00{place}\"", "f\"{job_id}\""),
        ("mentions_are_words", "if isinstance(item, str)", "if True"),
        ("mention_all_is_said", "payload.get(\"mention_all\") is True", "bool(payload.get(\"mention_all\"))"),
    ),
    *of(
        module("lanes"), tests("intake_bounds", "inbound", "shares"),
        ("lanes_are_bounded_in_bytes", "and self._shares.admits(size, *holders)", ""),
    ),
    *of(
        module("shares"), tests("shares", "intake_bounds"),
        ("a_share_of_what_is_free", "(self._total_bytes - self.held_bytes) // SHARE", "self._total_bytes - self.held_bytes"),
        ("of_each_holder", "return all(", "return any("),
    ),
    *of(
        module("pins"), tests("pins"),
        ("pins_are_of_their_epoch", "known[0] == epoch and", ""),
        ("pins_are_read_again", "and trio.current_time() - known[1] < REMEMBER_SECONDS", ""),
    ),
    *of(
        module("recipients"), tests("recipients", "outbound", "group_replies"),
        ("only_the_active_are_written_to", "return owner if owner is not None and owner.is_active else None", "return owner"),
    ),
)  # fmt: skip

RELAY = (
    *of(
        module("catchup"), tests("catchup_progress", "catchup_hostile", "catchup"),
        ("the_cursors_own_message_is_the_present", "stays and len(page.frames) == 1", "False"),
    ),
    *of(
        module("turnstile"), tests("turnstile"),
        ("the_lowest_rank_first", "mine = (rank, next(self._numbers), trio.Event())", "mine = (0, next(self._numbers), trio.Event())"),
        ("who_was_cancelled_passes_on", "                self._pass_on()  # the", "                pass  # the"),
    ),
    *of(
        module("wire_guard"), tests("wire_guard"),
        ("the_upgrade_is_bounded", "if self._upgrade_bytes > UPGRADE_BYTES:", "if False:"),
        ("a_message_is_bounded", "if self._message_bytes > self._most_message_bytes:", "if False:"),
    ),
    *of(
        module("rest"), tests("answers", "rest_bounds", "rest_hostile", "rest"),
        ("prekeys_told_are_bounded", "min(max(left, 0), MOST_PREKEYS_TOLD)", "max(left, 0)"),
    ),
    *of(
        module("bodies"), tests("rest_bounds", "rest_hostile", "rest"),
        ("bodies_are_bounded", "if max(came, given) > most_bytes:", "if False:"),
        ("bodies_are_bounded_as_they_come", "if max(came, given) > most_bytes:", "if given > most_bytes:"),
    ),
    *of(
        module("related"), tests("related"),
        ("keys_are_bounded", "key if key is not None and len(key) <= MOST_KEY_CHARACTERS else None", "key"),
        ("scopes_are_bounded", "relation.scopes[:MOST_SCOPES]", "relation.scopes"),
    ),
    *of(
        module("way"), tests("way"),
        ("loopback_goes_directly", "if is_loopback(host) or given == NONE:", "if given == NONE:"),
    ),
)  # fmt: skip

HOUSE = (
    *of(
        module("health"), tests("health"),
        ("a_stuck_loop_is_not_alive", "ok=behind < STUCK_SECONDS", "ok=True"),
    ),
    *of(
        module("redis_watch"), tests("redis_watch"),
        ("nearly_full_holds", "most > 0 and used > most * (HOLD_UNTIL if was_full else HOLD_FROM)", "False"),
    ),
    *of(
        module("redis_check"), tests("redis_check", "redis_watch"),
        ("too_old", "and _numbers(version) < OLDEST_VERSION:", "and False:"),
    ),
    *of(
        module("recycling"), tests("pool/test_replacing", "pool/test_pool"),
        ("not_within_its_rest", "if age_seconds < self.rest_seconds:", "if False:"),
    ),
    *of(
        module("autoscale"), tests("pool/test_scaling"),
        ("up_only_when_all_are_busy", "0 < load.slots <= load.busy and", "0 < load.slots and"),
    ),
    *of(
        module("time_guard"), tests("time_guard"),
        ("back_is_told", "                self.on_back()\n", ""),
    ),
    *of(
        module("twins"), tests("twins"),
        ("one_sighting_is_no_proof", "self._is_twin = self._is_twin or self._answered", "self._is_twin = True"),
    ),
)  # fmt: skip

SUPERVISOR = Part("supervisor", (*INTAKE, *RELAY, *HOUSE), FOLDERS)
