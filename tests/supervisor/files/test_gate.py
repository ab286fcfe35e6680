"""The file gate in front of a relay: four calls, and each way in which one fails has its reason, is counted, and loses nothing else."""

import re
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import httpx2
import msgspec
import pytest
import trio

from bus.files import calls
from bus.files.calls import CallFailure
from bus.files.proofs import Call, FilesKey
from supervisor.files.key_file import write_files_key
from supervisor.files.process import Timing, run_files
from tests.sandbox.relay import talk
from tests.supervisor.files.calling import KEY, Answer, called, files_settings, gate, listening
from tests.waiting import waiting_for

SEALED = bytes(range(256)) * 3000
SIZE = len(SEALED)
IDLE = Timing(idle_seconds=0.2)


async def test_a_file_goes_up_and_comes_down_whole_and_from_a_byte_on(tmp_path: Path) -> None:
    async with gate(tmp_path) as caller:
        attachment_id = await caller.upload(SEALED)
        whole = await caller.get(attachment_id, SIZE)
        assert (whole.status, whole.body, whole.headers["accept-ranges"]) == (200, SEALED, "bytes")
        rest = await caller.get(attachment_id, SIZE, 1000)
        assert (rest.status, rest.body) == (206, SEALED[1000:])
        assert rest.headers["content-range"] == f"bytes 1000-{SIZE - 1}/{SIZE}"
        await caller.api.fault("file_no_range")
        anew = await caller.get(attachment_id, SIZE, 1000)
        assert (anew.status, anew.body, anew.headers.get("accept-ranges")) == (200, SEALED, None)
        metrics = (await caller.client.get("/metrics")).text
        assert 'hashee_file_transfers_total{direction="out"} 1.0' in metrics
        assert 'hashee_file_bytes_total{direction="in"} 2.303e+06' in metrics


async def test_a_long_file_passes_whole_and_a_cut_one_is_never_taken_for_it(tmp_path: Path) -> None:
    sealed = b"".join(b"%07d " % number for number in range(400_000))
    async with gate(tmp_path) as caller:
        attachment_id = await caller.upload(sealed)
        assert (await caller.get(attachment_id, len(sealed))).body == sealed
        assert (await caller.get(attachment_id, len(sealed), 7)).body == sealed[7:]
        await caller.api.fault("file_cut")
        with pytest.raises(httpx2.RemoteProtocolError):
            await caller.get(attachment_id, len(sealed))
        metrics = (await caller.client.get("/metrics")).text
        assert 'hashee_file_failures_total{reason="relay_unreachable"} 1.0' in metrics
        assert (await caller.get(attachment_id, len(sealed))).body == sealed


async def test_a_repeated_put_and_confirm_give_the_same_attachment(tmp_path: Path) -> None:
    async with gate(tmp_path) as caller:
        announced = await caller.announce(SIZE)
        assert (await caller.put(announced, SEALED)).status == 200
        assert (await caller.put(announced, SEALED)).status == 200
        first, second = await caller.confirm(announced, SEALED), await caller.confirm(announced, SEALED)
        assert first["attachment_id"] == second["attachment_id"]


async def test_nobody_calls_without_the_agents_key_nor_twice_by_one_proof(tmp_path: Path) -> None:
    async with gate(tmp_path) as caller:
        attachment_id = await caller.upload(SEALED)
        target = calls.file_target(attachment_id, SIZE)
        refused = {
            "none": {calls.PROOF_HEADER: ""},
            "of another call": {calls.PROOF_HEADER: caller.proof(Call("GET", target + "1", 0))},
            "stale": {calls.PROOF_HEADER: caller.key.prove(Call("GET", target, 0), time_ms=1, nonce="0" * 32)},
        }
        reasons = {
            name: (await caller.call("GET", target, bound="", headers=sent)).reason for name, sent in refused.items()
        }
        assert reasons == {"none": "bad_proof", "of another call": "bad_proof", "stale": "stale_proof"}
        once = {calls.PROOF_HEADER: caller.proof(Call("GET", target, 0))}
        assert (await caller.call("GET", target, bound="", headers=once)).status == 200
        assert (await caller.call("GET", target, bound="", headers=once)).reason == CallFailure.REPLAYED
        announced = await caller.announce(SIZE)
        unproven = {calls.TICKET_HEADER: announced["ticket"], calls.PROOF_HEADER: ""}
        path = calls.upload_path(announced["upload_id"])
        refusal = await caller.call("PUT", path, SEALED, bound=announced["ticket"], headers=unproven)
        assert refusal.reason == CallFailure.BAD_PROOF, "a ticket alone is no right to send"
        caller.key = FilesKey.of_bus_key(b"x" * 32)
        assert (await caller.get(attachment_id, SIZE)).reason == CallFailure.BAD_PROOF
        write_files_key(caller.state_dir, caller.key)  # the store secret was rotated
        assert (await caller.get(attachment_id, SIZE)).status == 200


async def test_readiness_says_of_a_proof_whether_it_would_count_and_counts_nothing(tmp_path: Path) -> None:
    async with gate(tmp_path) as caller:

        async def ready(proof: str) -> dict[str, object]:
            answer = await caller.client.get("/readyz", headers={calls.PROOF_HEADER: proof} if proof else {})
            said = {check["name"]: check["detail"] for check in answer.json()["checks"]}
            assert answer.status_code == (503 if any(said.values()) else 200)
            return said

        assert await ready("") == {"files": ""}
        proof = caller.proof(Call("GET", "/readyz", 0))
        assert await ready(proof) == {"files": "", "proof": ""}
        assert await ready(proof) == {"files": "", "proof": "replayed: this very call was made before"}
        assert str((await ready(caller.proof(Call("GET", "/healthz", 0))))["proof"]).startswith("bad_proof: ")
        old = KEY.prove(Call("GET", "/readyz", 0), time_ms=round(time.time() * 1000) - 90_000, nonce="0" * 32)
        assert (await ready(old))["proof"] == "stale_proof: the caller's clock differs by 90 s from this one"
        metrics = (await caller.client.get("/metrics")).text
        failures = re.findall(r"^hashee_file_failures_total\{.*\} (.*)$", metrics, re.M)
        assert len(failures) > 5
        assert set(failures) == {"0.0"}


async def test_the_gate_is_no_deputy_for_other_routes(tmp_path: Path) -> None:
    async with gate(tmp_path) as caller:
        for attachment_id in ("../keys/users/U/devices", "..%2fkeys", "a/b", "a;b", "%00", "a" * 129):
            answer = await caller.call("GET", f"/v1/files/{attachment_id}?size={SIZE}", bound="")
            assert answer.reason == CallFailure.BAD_CALL, attachment_id
        for target in ("/v1/files/a", "/v1/files/a?size=x", "/", "/v1/uploads/", "//v1/confirm", "/agents/A/files"):
            assert (await caller.call("GET", target, bound="")).reason == CallFailure.NO_SUCH_CALL
        stats = (await caller.api.stats()).total
        assert not [name for name in stats if name.startswith("rest.GET /keys") or name.startswith("rest.GET /files")]


async def test_a_ticket_is_for_one_upload_of_one_size_and_nobody_else_makes_one(tmp_path: Path) -> None:
    async with gate(tmp_path) as caller:
        mine, other = await caller.announce(SIZE), await caller.announce(SIZE)
        ticket = mine["ticket"]
        forged = ("", "x", ticket[:-4] + "AAAA", other["ticket"])
        target = calls.upload_path(mine["upload_id"])
        for one in forged:
            answer = await caller.call("PUT", target, SEALED, bound=one, headers={calls.TICKET_HEADER: one})
            assert answer.reason == CallFailure.BAD_TICKET
        assert (await caller.put(mine, SEALED[:-1])).reason == CallFailure.WRONG_LENGTH
        assert (await caller.put(mine, SEALED + b"x")).reason == CallFailure.WRONG_LENGTH
        assert (await caller.put(mine, SEALED)).status == 200


async def test_what_the_relay_does_wrongly_has_a_reason_and_the_next_call_works(tmp_path: Path) -> None:
    async with gate(tmp_path) as caller:
        attachment_id = await caller.upload(SEALED)

        async def put() -> Answer:
            return await caller.put(await caller.announce(SIZE), SEALED)

        async def confirm() -> Answer:
            announced = await caller.announce(SIZE)
            await caller.put(announced, SEALED)
            return await caller.confirm(announced, SEALED)

        async def announce() -> Answer:
            return await caller.announce(SIZE)

        async def get() -> Answer:
            return await caller.get(attachment_id, SIZE)

        cases: tuple[tuple[Callable[[], Awaitable[Answer]], str, dict[str, object], CallFailure, bool], ...] = (
            (announce, "file_429", {"retry_after": 7}, CallFailure.RELAY_LIMIT, True),
            (announce, "file_429", {"reason": "DAILY_LIMIT"}, CallFailure.DAILY_LIMIT, False),
            (announce, "file_413", {}, CallFailure.TOO_LARGE, False),
            (announce, "file_500", {}, CallFailure.RELAY_FAILED, True),
            (announce, "file_bad_id", {}, CallFailure.BAD_ANSWER, True),
            (put, "file_expired", {}, CallFailure.UPLOAD_GONE, False),
            (put, "file_cut", {}, CallFailure.RELAY_FAILED, True),
            (put, "file_redirect", {"url": f"{caller.it.url}/x"}, CallFailure.BAD_UPLOAD_URL, False),
            (confirm, "file_forget", {}, CallFailure.UPLOAD_GONE, False),
            (confirm, "file_spoil", {}, CallFailure.SHA256_MISMATCH, False),
            (get, "file_wrong_size", {}, CallFailure.WRONG_SIZE, False),
            (get, "file_500", {}, CallFailure.RELAY_FAILED, True),
            (get, "file_redirect", {"url": "http://192.168.1.1/x"}, CallFailure.BAD_UPLOAD_URL, False),
        )
        for call, fault, options, reason, may_try_again in cases:
            await caller.api.fault(fault, **options)
            answer = await call()
            assert (answer.reason, answer.may_try_again) == (reason, may_try_again), fault
            assert answer.status == calls.STATUS[reason]
        assert (await get()).body == SEALED
        counted = (await caller.client.get("/metrics")).text
        assert 'hashee_file_failures_total{reason="bad_upload_url"} 2.0' in counted
        absent = await caller.get("nobody-has-this", SIZE)
        assert absent.reason == CallFailure.NO_SUCH_FILE
        foreign = await caller.announce(SIZE, "00000000-0000-0000-0000-000000000000")
        assert foreign.reason == CallFailure.REFUSED


async def test_an_upload_goes_to_a_named_presigned_host_without_the_token_and_to_no_other(tmp_path: Path) -> None:
    async with gate(tmp_path, "localhost:{port}") as caller:
        port = caller.it.url.rpartition(":")[2]
        presigned = f"http://localhost:{port}/presigned/{{upload_id}}?signature={{signature}}"
        await caller.api.fault("file_elsewhere", url=presigned)
        attachment_id = await caller.upload(SEALED)
        fetched = presigned.replace("{upload_id}", "{attachment_id}")
        await caller.api.fault("file_redirect", url=fetched)
        assert (await caller.get(attachment_id, SIZE, 5)).body == SEALED[5:]
        for url in (
            "//elsewhere/x",
            "ftp://127.0.0.1/x",
            f"https://localhost:{port}9/x",
            f"http://127.0.0.2:{port}/x",
            f"http://user@127.0.0.1:{port}/x",
            "https://169.254.169.254/latest/meta-data",
            "https://[::ffff:10.0.0.1]/x",
            "",
        ):
            await caller.api.fault("file_elsewhere", url=url)
            announced = await caller.announce(SIZE)
            answer = announced if announced.reason else await caller.put(announced, SEALED)
            assert answer.reason == CallFailure.BAD_UPLOAD_URL, url
        for url in ("https://a..b/x", "https://xn--a/x", "https://-/x"):
            await caller.api.fault("file_elsewhere", url=url)
            answer = await caller.put(await caller.announce(SIZE), SEALED)
            assert answer.reason in (CallFailure.BAD_UPLOAD_URL, CallFailure.RELAY_UNREACHABLE), url
        stats = (await caller.api.stats()).total
        assert "files.presigned_with_token" not in stats


async def test_a_body_that_is_none_of_a_call_is_refused(tmp_path: Path) -> None:
    async with gate(tmp_path) as caller:
        for body in (b"", b"[]", b"{", b'{"size":1}', b'{"conversation_id":"a/b","size":16}', b"\xff"):
            assert (await caller.call("POST", calls.UPLOADS_PATH, body)).reason == CallFailure.BAD_CALL
        assert (await caller.call("POST", calls.UPLOADS_PATH, b"x" * 5000)).reason == CallFailure.BAD_CALL
        assert (await caller.announce(calls.MAX_SEALED_BYTES + 1)).reason == CallFailure.TOO_LARGE
        wrong = msgspec.json.encode(calls.Confirm("a", "0" * 63))
        assert (await caller.call("POST", calls.CONFIRM_PATH, wrong)).reason == CallFailure.BAD_CALL


async def test_a_gate_that_nobody_calls_leaves(tmp_path: Path) -> None:
    """Under a keeper, which starts another with the next call; the numbers stay."""
    state_dir = tmp_path / "state"
    state_dir.mkdir(mode=0o700)
    write_files_key(state_dir, KEY)
    async with talk(tmp_path) as (it, api):
        for announced in ("1.0", "2.0"):
            with waiting_for("an idle gate to leave", 10):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(run_files, files_settings(it, state_dir), listening(state_dir / announced), IDLE)
                    async with called(state_dir / announced, it, api, state_dir) as caller:
                        assert (await caller.announce(calls.MAX_SEALED_BYTES + 1)).reason == CallFailure.TOO_LARGE
                        metrics = (await caller.client.get("/metrics")).text
            assert f'hashee_file_failures_total{{reason="too_large"}} {announced}' in metrics
