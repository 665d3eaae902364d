"""Adds time-outs to uvicorn's protocols for HTTP and WebSocket, so that slow clients do not keep connections."""

from __future__ import annotations

import asyncio

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol


class _TimedSending(asyncio.Protocol):
    """Closes a connection whose client does not read in time. Mixed into a protocol of uvicorn."""

    timeout: float
    """Seconds."""
    loop: asyncio.AbstractEventLoop
    transport: asyncio.Transport
    _sending: asyncio.TimerHandle | None = None

    def pause_writing(self) -> None:
        super().pause_writing()
        self._sending = self.loop.call_later(self.timeout, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._end_sending()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end_sending()
        super().connection_lost(exc)

    def _end_sending(self) -> None:
        if self._sending:
            self._sending.cancel()


class TimedProtocol(_TimedSending, H11Protocol):
    """Closes a connection whose client does not send a whole request, or does not read the response, in time."""

    _receiving: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._limit_receiving()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if not self._is_incomplete():
            self._end_receiving()

    def handle_websocket_upgrade(self, event: h11.Request) -> None:
        self._end_receiving()
        super().handle_websocket_upgrade(event)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self._is_incomplete() and not self.transport.is_closing():
            self._limit_receiving()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end_receiving()
        super().connection_lost(exc)

    def _is_incomplete(self) -> bool:
        """Returns whether the client has more of a request to send."""
        return self.conn.their_state in (h11.IDLE, h11.SEND_BODY)

    def _limit_receiving(self) -> None:
        self._end_receiving()
        self._receiving = self.loop.call_later(self.timeout, self.transport.abort)

    def _end_receiving(self) -> None:
        if self._receiving:
            self._receiving.cancel()


class TimedSocketProtocol(_TimedSending, WebSocketsSansIOProtocol):
    """Closes the connection of a WebSocket client that does not read in time."""


def timed_socket(seconds: float) -> type[TimedSocketProtocol]:
    """Returns the protocol class for WebSocket with this time-out."""
    return type("TimedSocketProtocol", (TimedSocketProtocol,), {"timeout": seconds})


def timed(seconds: float) -> type[TimedProtocol]:
    """Returns the protocol class with this time-out."""
    return type("TimedProtocol", (TimedProtocol,), {"timeout": seconds})
