"""Files of PROTOCOL §3: announced, uploaded, confirmed by hash, fetched. The relay holds ciphertext and checks its hash."""

import hashlib
import uuid

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from sandbox.relay.http import Rest, body_of
from sandbox.relay.records import Attachment
from sandbox.relay.state import Refused

MAX_FILE_BYTES = 101 * 1024 * 1024
"""100 MB of content and what sealing adds to it."""


class UploadBody(msgspec.Struct, frozen=True):
    filename: str
    content_type: str
    size: int
    conversation_id: str


class ConfirmBody(msgspec.Struct, frozen=True):
    upload_id: str
    sha256: str


class FilesRest(Rest):
    def routes(self) -> list[Route]:
        return [
            self.route("POST", "/agents/{agent_id}/files", self.announce),
            self.route("POST", "/users/me/files", self.announce),
            self.route("PUT", "/agents/{agent_id}/files/{upload_id}/upload", self.upload),
            self.route("PUT", "/users/me/files/{upload_id}/upload", self.upload),
            self.route("POST", "/files/confirm", self.confirm),
            self.route("GET", "/files/{attachment_id}", self.fetch),
        ]

    async def announce(self, request: Request) -> object:
        owner_id = self.owner_of(request)
        body = await body_of(request, UploadBody)
        self.hub.state.conversation_for(owner_id, body.conversation_id)
        if not 0 <= body.size <= MAX_FILE_BYTES:
            raise Refused(413, "FILE_TOO_LARGE", "at most 100 MB")
        upload = Attachment(
            str(uuid.uuid4()), owner_id, body.filename, body.content_type, body.size, body.conversation_id
        )
        self.hub.state.save_upload(upload)
        url = f"{str(request.url).partition('?')[0]}/{upload.upload_id}/upload"
        return {"upload_id": upload.upload_id, "upload_url": url}

    async def upload(self, request: Request) -> object:
        upload = self._own(request, request.path_params["upload_id"])
        received = bytearray()
        async for chunk in request.stream():
            received += chunk
            if len(received) > upload.size:
                raise Refused(413, "SIZE_MISMATCH", "more bytes than announced")
        if len(received) != upload.size:
            raise Refused(400, "SIZE_MISMATCH", "fewer bytes than announced")
        self.hub.state.storage.save_bytes(upload.upload_id, bytes(received))
        return {"upload_id": upload.upload_id}

    async def confirm(self, request: Request) -> object:
        body = await body_of(request, ConfirmBody)
        upload = self._own(request, body.upload_id)
        data = self.hub.state.storage.load_bytes(upload.upload_id)
        if data is None:
            raise Refused(409, "NOT_UPLOADED", "nothing was uploaded")
        if hashlib.sha256(data).hexdigest() != body.sha256:
            raise Refused(409, "SHA256_MISMATCH", "the hash is not that of the ciphertext")
        attachment_id = upload.attachment_id or str(uuid.uuid4())
        self.hub.state.save_upload(msgspec.structs.replace(upload, attachment_id=attachment_id))
        return {"attachment_id": attachment_id}

    async def fetch(self, request: Request) -> Response:
        owner_id = self.owner_of(request)
        wanted = request.path_params["attachment_id"]
        for upload in self.hub.state.uploads.values():
            if upload.attachment_id == wanted:
                self.hub.state.conversation_for(owner_id, upload.conversation_id)
                data = self.hub.state.storage.load_bytes(upload.upload_id)
                return Response(data, media_type="application/octet-stream")
        raise Refused(404, "NOT_FOUND", "no such file")

    def _own(self, request: Request, upload_id: str) -> Attachment:
        owner_id = self.owner_of(request)
        upload = self.hub.state.uploads.get(upload_id)
        if upload is None or upload.owner_id != owner_id:
            raise Refused(404, "NOT_FOUND", "no such upload")
        return upload
