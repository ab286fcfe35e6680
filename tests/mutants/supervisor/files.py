"""The file gate: where a file may go, who may call, and what counts as a file."""

from __future__ import annotations

from tests.mutants.mutant import of

URLS = ("tests/supervisor/files/test_upload_urls.py",)
TICKETS = ("tests/supervisor/files/test_tickets.py",)
GATE = ("tests/supervisor/files/test_gate.py",)
EXCHANGE = ("tests/supervisor/files/test_exchange.py",)

FILES = (
    *of(
        "supervisor/files/upload_urls.py",
        URLS,
        ("two_slashes_are_another_host", 'if url.startswith("//"):', "if False:"),
        ("no_user_part", 'if "@" in parts.netloc:', "if False:"),
        (
            "no_other_scheme",
            'if parts.scheme not in ("http", "https") or not _HOST.fullmatch(host):',
            "if not _HOST.fullmatch(host):",
        ),
        ("another_host_needs_https", 'if scheme != "https" and not (is_named and is_loopback(host)):', "if False:"),
        ("a_named_host_needs_https", "not (is_named and is_loopback(host))", "not is_named"),
        ("another_port_must_be_named", "if port != HTTPS_PORT and not is_named:", "if False:"),
        ("a_host_without_port_is_named_for_one", "(host in self.named and port == HTTPS_PORT)", "host in self.named"),
        (
            "an_address_in_an_address",
            "if carried is not None and not (carried.is_global and not carried.is_multicast):",
            "if carried is not None and False:",
        ),
        ("an_address_of_before", "if ip.is_site_local or ip.sixtofour is not None:", "if ip.is_site_local:"),
        ("translated_addresses", "if ip in _NAT64:", "if False:"),
        ("an_address_of_many", "return ip.is_global and not ip.is_multicast", "return ip.is_global"),
        (
            "the_origin_has_a_port",
            "(parts.scheme, host, port) == self._relay",
            "(parts.scheme, host, 443) == self._relay",
        ),
    ),
    *of(
        "supervisor/files/tickets.py",
        TICKETS,
        ("a_ticket_is_proved", "if not hmac.compare_digest(mac, self._mac(packed)):", "if not packed:"),
        ("a_ticket_is_of_one_upload", "if ticket.upload_id != upload_id:", "if False:"),
        ("a_ticket_fits_a_header", "if len(text) > MAX_TICKET_CHARACTERS:", "if False:"),
    ),
    *of(
        "supervisor/files/key_file.py",
        TICKETS,
        ("a_key_is_whole", "return raw if len(raw) == KEY_BYTES else None", "return raw"),
        ("a_key_that_changed_is_read_again", "if looks != self._seen and", "if self._seen is None and"),
    ),
    *of(
        "supervisor/files/gate.py",
        GATE,
        ("an_attachment_is_no_path", "if not is_id(attachment_id):", "if False:"),
        ("what_was_announced_is_sent", "if exchange.content_length != ticket.size:", "if False:"),
        ("a_file_has_a_largest_size", "if wanted.size > MAX_SEALED_BYTES:", "if False:"),
        ("who_calls_proves_it", "        self._prove(exchange, asked)\n", ""),
        ("who_sends_proves_it", "        self._prove(exchange, sealed_ticket)\n", ""),
        ("a_hash_is_one", "or not is_sha256(wanted.sha256)", ""),
    ),
    *of(
        "supervisor/files/relay_files.py",
        GATE,
        ("an_upload_has_an_id", "if not is_id(said.upload_id):", "if False:"),
        (
            "an_upload_is_not_redirected",
            '            if answer.is_redirect:\n                raise CallFailed(CallFailure.BAD_UPLOAD_URL, "an upload',
            '            if False:\n                raise CallFailed(CallFailure.BAD_UPLOAD_URL, "an upload',
        ),
        (
            "a_file_has_the_size_that_was_said",
            'if answer.headers.get("Content-Length") != str(size - starts):',
            "if False:",
        ),
        ("a_file_that_is_cut_is_no_file", 'raise httpx2.RemoteProtocolError("the body ends too soon")', "return"),
        ("a_presigned_place_gets_no_token", "content=body, uses_token=to.is_relay)", "content=body, uses_token=True)"),
        ("a_redirected_file_gets_no_token", "headers=headers, uses_token=False)", "headers=headers, uses_token=True)"),
        ("an_address_is_looked_at", "if is_public(one) and not is_own(one, to.port)", "if True"),
    ),
    *of(
        "supervisor/files/exchange.py",
        EXCHANGE,
        ("a_body_has_a_length", 'if self.header("transfer-encoding"):', "if False:"),
        (
            "a_long_body_that_ends_too_soon_is_none",
            "        if not piece:\n            raise ClientGone\n        self._missing",
            "        self._missing",
        ),
        (
            "a_long_body_is_the_last",
            "if self._connection.is_last:",
            "if self._connection.is_unread:",
        ),
        (
            "an_unread_body_ends_the_connection",
            "                    if exchange.is_answered and self.is_unread:\n                        return await self._linger()\n",
            "",
        ),
    ),
    *of(
        "supervisor/files/failures.py",
        GATE,
        ("what_passes_is_tried_again", "may_try_again = self.failure in MAY_SUCCEED_LATER", "may_try_again = False"),
    ),
)
