"""Why TLS with the file gate cannot begin, in words, and the setting that helps: for whoever calls it, workers and `hashee-agent doctor`. No IO."""

import ssl
from dataclasses import dataclass
from typing import Final

WHO_SIGNED: Final = (
    "HASHEE_FILES_CA must name a PEM file with the certificate of who signed it (docs/deploy/systemd.md)"
)
BY_CODE: Final = {
    9: "the clock of this host is behind, or the gate's HASHEE_FILES_CERT begins later",  # X509_V_ERR_CERT_NOT_YET_VALID
    10: "give the gate a new HASHEE_FILES_CERT and start it again; or the clock of this host is ahead",  # …_CERT_HAS_EXPIRED
    62: "HASHEE_FILES_URL must have a name that the certificate has",  # X509_V_ERR_HOSTNAME_MISMATCH
    64: "HASHEE_FILES_URL must have an address that the certificate has",  # X509_V_ERR_IP_ADDRESS_MISMATCH
}
NO_TLS: Final = frozenset({"WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG"})
"""What OpenSSL calls an answer in the clear, by its versions."""
HANDSHAKE: Final = b"\x16"
"""With this byte TLS begins."""


@dataclass(frozen=True)
class Refused:
    """What is wrong, and what helps."""

    said: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.said}: {self.remedy}"


PLAIN_GATE: Final = Refused(
    "the file gate speaks no TLS",
    "HASHEE_FILES_URL=http://… says so, or the gate is given HASHEE_FILES_CERT and HASHEE_FILES_CERT_KEY",
)
GATE_WITH_TLS: Final = Refused("the file gate speaks TLS", "HASHEE_FILES_URL must begin with https://")


def refused_tls(error: BaseException | None) -> Refused | None:
    """Returns why a handshake failed for good; None for what may pass, such as a gate that went away meanwhile."""
    if isinstance(error, ssl.SSLCertVerificationError):
        said = f"the file gate's certificate is refused: {error.verify_message.rstrip('.')}"
        return Refused(said, BY_CODE.get(error.verify_code, WHO_SIGNED))
    if isinstance(error, ssl.SSLError) and error.reason in NO_TLS:
        return PLAIN_GATE
    return None
