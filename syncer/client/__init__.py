"""A client of the daemon's HTTP interface, for applications that show users their own writes. docs/freshness.md.

protocol    what to send, what a response means, and when to fall back; no I/O
sync        `Client`, over urllib3
aio         `AsyncClient`, over httpx: needs `readmodel-syncer[asyncio]`; import it from `syncer.client.aio`
tokens      the token of a transaction
"""

from syncer.client.protocol import FreshnessError, Session, Shown, TimedOut, Unavailable
from syncer.client.sync import Client
from syncer.client.tokens import read_token, read_token_async

__all__ = ["Client", "FreshnessError", "Session", "Shown", "TimedOut", "Unavailable", "read_token", "read_token_async"]
