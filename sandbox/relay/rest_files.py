"""Files of PROTOCOL §3: announced, uploaded, confirmed by hash, fetched whole or from a byte on. The relay holds ciphertext and checks its hash.

With a fault of `file_…` armed (sandbox/relay/faults.py) it does one of these wrongly, as a relay or a storage behind it may.
"""

import hashlib
import re
import secrets
import uuid
from collections.abc import AsyncIterator
from contextlib import closing
from typing import IO

import msgspec
import trio
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response, StreamingResponse
from starlette.routing import Route

from sandbox.relay.faults import FaultKind, FaultRequest
from sandbox.relay.http import Rest, body_of
from sandbox.relay.records import Attachment
from sandbox.relay.shelf import Reading
from sandbox.relay.state import Refused

MAX_FILE_BYTES = 101 * 1024 * 1024
"""100 MB of content and what sealing adds to it."""

READ_BYTES = 256 * 1024

RANGE = re.compile(r"bytes=([0-9]{1,12})-")

NO_ID = "../keys/users/U/devices"


class UploadBody(msgspec.Struct, frozen=True):
    filename: str
    content_type: str
    size: int
    conversation_id: str


class ConfirmBody(msgspec.Struct, frozen=True):
    upload_id: str
    sha256: str


class CutOff(Exception):
    """Raised in the middle of an answer, so that its connection ends there."""


class FilesRest(Rest):
    def routes(self) -> list[Route]:
        return [
            self.route("POST", "/agents/{agent_id}/files", self.announce),
            self.route("POST", "/users/me/files", self.announce),
            self.route("PUT", "/agents/{agent_id}/files/{upload_id}/upload", self.upload),
            self.route("PUT", "/users/me/files/{upload_id}/upload", self.upload),
            self.route("PUT", "/presigned/{upload_id}", self.upload_presigned, faulty=False),
            self.route("GET", "/presigned/{attachment_id}", self.fetch_presigned, faulty=False),
            self.route("POST", "/files/confirm", self.confirm),
            self.route("GET", "/files/{attachment_id}", self.fetch),
        ]

    async def announce(self, request: Request) -> object:
        owner_id = self.owner_of(request)
        self._refuse_by_fault(owner_id)
        body = await body_of(request, UploadBody)
        self.hub.state.conversation_for(owner_id, body.conversation_id)
        if not 0 <= body.size <= MAX_FILE_BYTES:
            raise Refused(413, "FILE_TOO_LARGE", "at most 100 MB")
        upload = Attachment(
            upload_id=str(uuid.uuid4()),
            owner_id=owner_id,
            filename=body.filename,
            content_type=body.content_type,
            size=body.size,
            conversation_id=body.conversation_id,
            signature=secrets.token_urlsafe(24),
        )
        self.hub.state.save_upload(upload)
        self.hub.stats.count("files.announced", owner_id)
        if self.hub.fault(FaultKind.FILE_BAD_ID, owner_id):
            return {"upload_id": NO_ID, "upload_url": "/anywhere"}
        return {"upload_id": upload.upload_id, "upload_url": self._upload_url(request, upload)}

    def _upload_url(self, request: Request, upload: Attachment) -> str:
        """Returns where the bytes go; by a fault to another host, with a signature in place of a token."""
        if (elsewhere := self.hub.fault(FaultKind.FILE_ELSEWHERE, upload.owner_id)) is not None:
            return elsewhere.url.replace("{upload_id}", upload.upload_id).replace("{signature}", upload.signature)
        return f"{str(request.url).partition('?')[0]}/{upload.upload_id}/upload"

    async def upload(self, request: Request) -> object:
        upload = self._own(request, request.path_params["upload_id"])
        self._refuse_by_fault(upload.owner_id)
        return await self._receive(request, upload)

    async def upload_presigned(self, request: Request) -> object:
        """Takes an upload as a storage of its own does: by the signature in its address, and never with a token."""
        if "authorization" in request.headers:
            self.hub.stats.count("files.presigned_with_token")
            raise Refused(400, "INVALID_REQUEST", "a presigned address takes no token")
        upload = self.hub.state.uploads.get(request.path_params["upload_id"])
        signature = request.query_params.get("signature", "")
        if upload is None or not secrets.compare_digest(signature, upload.signature):
            raise Refused(403, "FORBIDDEN", "another signature")
        return await self._receive(request, upload)

    async def _receive(self, request: Request, upload: Attachment) -> object:
        owner_id = upload.owner_id
        if (redirect := self.hub.fault(FaultKind.FILE_REDIRECT, owner_id)) is not None:
            return RedirectResponse(redirect.url, 307)
        if self.hub.fault(FaultKind.FILE_EXPIRED, owner_id):
            raise Refused(410, "UPLOAD_EXPIRED", "this upload was announced too long ago")
        file = self.hub.state.shelf.begin()
        try:
            received = await self._write(request, upload, file)
        except BaseException:
            self.hub.state.shelf.drop(file)
            raise
        self.hub.state.shelf.keep(upload.upload_id, file)
        self.hub.stats.count("files.uploaded", owner_id)
        self.hub.stats.count("files.bytes_in", owner_id, received)
        return {"upload_id": upload.upload_id}

    async def _write(self, request: Request, upload: Attachment, file: IO[bytes]) -> int:
        slow = self.hub.fault(FaultKind.FILE_SLOW, upload.owner_id)
        cut_at = upload.size // 2 if self.hub.fault(FaultKind.FILE_CUT, upload.owner_id) else None
        is_spoiled = self.hub.fault(FaultKind.FILE_SPOIL, upload.owner_id) is not None
        received = 0
        async for chunk in request.stream():
            if slow is not None:
                await trio.sleep(slow.delay_seconds)
            received += len(chunk)
            if received > upload.size:
                raise Refused(413, "SIZE_MISMATCH", "more bytes than announced")
            if cut_at is not None and received > cut_at:
                raise Refused(500, "INTERNAL", "the storage is gone")
            file.write(bytes(len(chunk)) if is_spoiled else chunk)
        if received != upload.size:
            raise Refused(400, "SIZE_MISMATCH", "fewer bytes than announced")
        return received

    async def confirm(self, request: Request) -> object:
        body = await body_of(request, ConfirmBody)
        upload = self._own(request, body.upload_id)
        self._refuse_by_fault(upload.owner_id)
        if self.hub.fault(FaultKind.FILE_FORGET, upload.owner_id):
            self.hub.state.shelf.forget(upload.upload_id)
            self.hub.state.forget_upload(upload)
            raise Refused(404, "NOT_FOUND", "no such upload")
        kept = self.hub.state.shelf.open(upload.upload_id)
        if kept is None:
            raise Refused(409, "NOT_UPLOADED", "nothing was uploaded")
        with closing(kept):
            digest = await trio.to_thread.run_sync(_digest_of, kept)
        if digest != body.sha256:
            raise Refused(409, "SHA256_MISMATCH", "the hash is not that of the ciphertext")
        attachment_id = upload.attachment_id or str(uuid.uuid4())
        self.hub.state.save_upload(msgspec.structs.replace(upload, attachment_id=attachment_id))
        self.hub.stats.count("files.confirmed", upload.owner_id)
        return {"attachment_id": NO_ID if self.hub.fault(FaultKind.FILE_BAD_ID, upload.owner_id) else attachment_id}

    async def fetch(self, request: Request) -> Response:
        owner_id = self.owner_of(request)
        self._refuse_by_fault(owner_id)
        upload = self.hub.state.attachment(request.path_params["attachment_id"])
        self.hub.state.conversation_for(owner_id, upload.conversation_id)
        if (redirect := self.hub.fault(FaultKind.FILE_REDIRECT, owner_id)) is not None:
            where = redirect.url.replace("{attachment_id}", request.path_params["attachment_id"])
            return RedirectResponse(where.replace("{signature}", upload.signature), 302)
        return self._give(request, upload, owner_id)

    async def fetch_presigned(self, request: Request) -> Response:
        """Gives a file as a storage of its own does, as `upload_presigned` takes one."""
        if "authorization" in request.headers:
            self.hub.stats.count("files.presigned_with_token")
            raise Refused(400, "INVALID_REQUEST", "a presigned address takes no token")
        upload = self.hub.state.attachment(request.path_params["attachment_id"])
        if not secrets.compare_digest(request.query_params.get("signature", ""), upload.signature):
            raise Refused(403, "FORBIDDEN", "another signature")
        return self._give(request, upload, upload.owner_id)

    def _give(self, request: Request, upload: Attachment, owner_id: str) -> Response:
        kept = self.hub.state.shelf.open(upload.upload_id)
        if kept is None:
            raise Refused(404, "NOT_FOUND", "no such file")
        has_ranges = self.hub.fault(FaultKind.FILE_NO_RANGE, owner_id) is None
        asked = RANGE.fullmatch(request.headers.get("range", "")) if has_ranges else None
        first = int(asked[1]) if asked else 0
        if asked and first >= upload.size:
            kept.close()
            raise Refused(416, "RANGE", "the file ends before that")
        length = upload.size - first - (1 if self.hub.fault(FaultKind.FILE_WRONG_SIZE, owner_id) else 0)
        headers = dict[str, str]()
        headers["content-length"] = str(length)
        if has_ranges:
            headers["accept-ranges"] = "bytes"
        if asked:
            headers["content-range"] = f"bytes {first}-{upload.size - 1}/{upload.size}"
        self.hub.stats.count("files.fetched" if not asked else "files.resumed", owner_id)
        pieces = self._pieces(kept, first, length, owner_id)
        return StreamingResponse(pieces, 206 if asked else 200, headers, "application/octet-stream")

    async def _pieces(self, kept: Reading, first: int, length: int, owner_id: str) -> AsyncIterator[bytes]:
        slow = self.hub.fault(FaultKind.FILE_SLOW, owner_id)
        cut_at = length // 2 if self.hub.fault(FaultKind.FILE_CUT, owner_id) else None
        is_spoiled = self.hub.fault(FaultKind.FILE_SPOIL, owner_id) is not None
        sent = 0
        with closing(kept):
            kept.seek(first)
            while piece := kept.read(min(READ_BYTES, length - sent)):
                if slow is not None:
                    await trio.sleep(slow.delay_seconds)
                if cut_at is not None and sent + len(piece) > cut_at:
                    yield piece[: cut_at - sent]
                    raise CutOff
                yield bytes(len(piece)) if is_spoiled else piece
                sent += len(piece)
        self.hub.stats.count("files.bytes_out", owner_id, sent)

    def _refuse_by_fault(self, owner_id: str) -> None:
        fault: FaultRequest | None
        if (fault := self.hub.fault(FaultKind.FILE_429, owner_id)) is not None:
            raise Refused(429, fault.reason or "RATE_LIMITED", "too many files", fault.retry_after)
        if self.hub.fault(FaultKind.FILE_413, owner_id):
            raise Refused(413, "FILE_TOO_LARGE", "at most 100 MB")
        if self.hub.fault(FaultKind.FILE_500, owner_id):
            raise Refused(500, "INTERNAL", "internal error")

    def _own(self, request: Request, upload_id: str) -> Attachment:
        owner_id = self.owner_of(request)
        upload = self.hub.state.uploads.get(upload_id)
        if upload is None or upload.owner_id != owner_id:
            raise Refused(404, "NOT_FOUND", "no such upload")
        return upload


def _digest_of(file: Reading) -> str:
    digest = hashlib.sha256()
    while piece := file.read(READ_BYTES):
        digest.update(piece)
    return digest.hexdigest()
