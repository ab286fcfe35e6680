"""Every setting that this program reads: what each is called, looks like, and is without being set.

Those that workers read too stand in bus/settings/shared.py and bus/settings/llm.py; docs/settings.md is compared with `ALL_SETTINGS` by a test.
"""

from bus.settings.files_place import FILES_CA, FILES_URL
from bus.settings.llm import ALL as LLM_SETTINGS
from bus.settings.reader import Setting
from bus.settings.redis_tls import REDIS_CA, REDIS_CERT, REDIS_KEY
from bus.settings.shared import (
    AGENT_ID,
    BUS_KEY,
    CONCURRENCY,
    HANDLER,
    JOB_SECONDS,
    LOG_FORMAT,
    LOG_LEVEL,
    REDIS_URL,
    RETRY_SECONDS,
    RETRY_TIMEOUTS,
    SHOW_ERRORS,
    SPOOL_DIR,
    SPOOL_MB,
    STATE_DIR,
)
from bus.telemetry.settings import ALL as TELEMETRY_SETTINGS
from supervisor.settings.backup_age import BACKUP_MAX_AGE_HOURS, BACKUP_RECIPIENTS
from supervisor.settings.way import PROXY

AGENT_TOKEN = Setting("HASHEE_AGENT_TOKEN", "the agent's token, hsk_ and 40 letters or digits", secret=True)
X25519_PRIVATE = Setting("HASHEE_X25519_PRIVATE_BASE64", "base64 of the 32 raw bytes of the key", secret=True)
ED25519_PRIVATE = Setting(
    "HASHEE_ED25519_PRIVATE_BASE64",
    "base64 of the 32 bytes of the seed, or of 64 bytes seed and public key",
    secret=True,
)
KEYSTORE = Setting("HASHEE_KEYSTORE", "the absolute path of a keystore.json of this agent")
STORE_KEY = Setting(
    "HASHEE_STORE_KEY", "base64 of 32 random bytes, the same for every process of the agent", secret=True
)
REDIS_TRUST = Setting("HASHEE_REDIS_TRUST", "eviction, persistence, or both with a comma", default="")
BASE_URL = Setting("HASHEE_BASE_URL", "https://host (http:// only on loopback)", default="https://api.hashee.ai")
FILES_LISTEN = Setting("HASHEE_FILES_LISTEN", "host:port (port 0 = any)", default="127.0.0.1:9477")
FILES_KEY = Setting("HASHEE_FILES_KEY", "base64 of the 32 bytes that `hashee-agent keys files` shows", secret=True)
FILES_CERT = Setting("HASHEE_FILES_CERT", "the absolute path of a readable PEM file with the file gate's certificate")
FILES_CERT_KEY = Setting(
    "HASHEE_FILES_CERT_KEY",
    "the absolute path of a readable PEM file with that certificate's key, without a passphrase",
)
UPLOAD_HOSTS = Setting("HASHEE_UPLOAD_HOSTS", "host or host:port, up to 32 with commas between them")
CONNECTION_MODE = Setting("HASHEE_CONNECTION_MODE", "websocket", default="websocket")
WORKERS = Setting("HASHEE_WORKERS", "N or MIN:MAX, from 0 to 256 (0 = they run elsewhere)", default="2")
WORKER_MAX_JOBS = Setting("HASHEE_WORKER_MAX_JOBS", "a whole number from 0 to 1000000000 (0 = no limit)", default="0")
WORKER_MAX_AGE_SECONDS = Setting("HASHEE_WORKER_MAX_AGE_SECONDS", "seconds, 0 to 31536000 (0 = no limit)", default="0")
WORKER_MEMORY = Setting("HASHEE_WORKER_MEMORY", "SOFT or SOFT:HARD in MiB, 0 to 1048576 (0 = no limit)", default="0")
RELOAD = Setting("HASHEE_RELOAD", "0 or 1", default="0")
MOST_WAITING = Setting("HASHEE_MOST_WAITING", "a whole number from 1 to 10000000", default="10000")
STRIKES = Setting("HASHEE_STRIKES", "on or off", default="on")
BACKUP_PASSPHRASE_FILE = Setting("HASHEE_BACKUP_PASSPHRASE_FILE", "the absolute path of a file with the passphrase")
BACKUP_IDENTITY_FILE = Setting("HASHEE_BACKUP_IDENTITY_FILE", "the absolute path of a file with an age identity")
HTTP_HOST = Setting("HASHEE_HTTP_HOST", "an IP address or host name to listen on", default="127.0.0.1")
HTTP_PORT = Setting("HASHEE_HTTP_PORT", "a free port, 0 to 65535 (0 = any)", default="9090", aliases=("PORT",))
SEND_RATE = Setting("HASHEE_SEND_RATE", "messages per second, 0 to 1000 (0 = no limit)", default="5")
MAX_CONNECTIONS = Setting("HASHEE_MAX_CONNECTIONS", "a whole number from 1 to 3", default="3")
DRAIN_SECONDS = Setting("HASHEE_DRAIN_SECONDS", "seconds, 0 to 3600", default="25")
KEY_CHANGE = Setting("HASHEE_KEY_CHANGE", "hold, accept or refuse", default="hold")
FSYNC = Setting("HASHEE_FSYNC", "second or always", default="second")
MEMORY = Setting("HASHEE_MEMORY", "MiB, a whole number from 64 to 1048576")
REDIS_MEMORY = Setting("HASHEE_REDIS_MEMORY", "MiB, a whole number from 24 to 1048576")
FIRST_SYNC_SECONDS = Setting("HASHEE_FIRST_SYNC_SECONDS", "seconds, 0 to 31536000", default="86400")
MCP_CONVERSATIONS = Setting("HASHEE_MCP_CONVERSATIONS", "ids of conversations with commas between them, or all")
MANIFEST = Setting(
    "HASHEE_MANIFEST",
    "the path of a JSON file with a capability manifest",
)
ALL_SETTINGS = (
    AGENT_ID,
    AGENT_TOKEN,
    X25519_PRIVATE,
    ED25519_PRIVATE,
    KEYSTORE,
    BASE_URL,
    PROXY,
    CONNECTION_MODE,
    HANDLER,
    WORKERS,
    WORKER_MAX_JOBS,
    WORKER_MAX_AGE_SECONDS,
    WORKER_MEMORY,
    RELOAD,
    CONCURRENCY,
    JOB_SECONDS,
    RETRY_SECONDS,
    RETRY_TIMEOUTS,
    SHOW_ERRORS,
    MOST_WAITING,
    STRIKES,
    REDIS_URL,
    REDIS_CA,
    REDIS_CERT,
    REDIS_KEY,
    REDIS_TRUST,
    STORE_KEY,
    BUS_KEY,
    FILES_URL,
    FILES_CA,
    FILES_LISTEN,
    FILES_KEY,
    FILES_CERT,
    FILES_CERT_KEY,
    UPLOAD_HOSTS,
    SPOOL_DIR,
    SPOOL_MB,
    BACKUP_PASSPHRASE_FILE,
    BACKUP_RECIPIENTS,
    BACKUP_IDENTITY_FILE,
    BACKUP_MAX_AGE_HOURS,
    STATE_DIR,
    FSYNC,
    MEMORY,
    REDIS_MEMORY,
    HTTP_HOST,
    HTTP_PORT,
    SEND_RATE,
    MAX_CONNECTIONS,
    DRAIN_SECONDS,
    FIRST_SYNC_SECONDS,
    KEY_CHANGE,
    MCP_CONVERSATIONS,
    MANIFEST,
    LOG_LEVEL,
    LOG_FORMAT,
    *LLM_SETTINGS,
    *TELEMETRY_SETTINGS,
)
