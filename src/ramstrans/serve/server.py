"""The process of a server: its socket, and an end that answers what it has accepted."""

import asyncio
import logging
import socket
from collections.abc import Iterator
from contextlib import suppress

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

from ramstrans.errors import UsageError
from ramstrans.serve.service import Service

logger = logging.getLogger(__name__)

KEEP_ALIVE = 75
"""Seconds that a connection may be idle; more than usual proxies allow, so that they close it first."""

LINGER = 1.0
"""Seconds in which a stopping server still answers on connections that are idle."""


def bind(host: str, port: int) -> socket.socket:
    """Take an address, without listening yet.

    Args:
        host: Name or address of this machine.
        port: 0: any free one.

    Raises:
        UsageError: It is taken or not of this machine.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = found[0]
        listener = socket.socket(family, kind, protocol)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
        except OSError:
            listener.close()
            raise
    except (OSError, UnicodeError) as error:  # of a name that is none
        reason = getattr(error, "strerror", None) or "no host has such a name"
        raise UsageError(
            f"--host {host} --port {port} cannot be listened on ({reason}); give another port, or 0 "
            "for any free one"
        ) from error
    return listener


def url_of(listener: socket.socket) -> str:
    """The URL of a socket."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class Server(uvicorn.Server):
    """Says when it listens; at the end no request that it has begun to read stays without an answer.

    Once a signal comes, it accepts no new connections, and every answer closes its connection. Idle
    connections may bring one more request, until `LINGER` has passed.
    """

    def __init__(self, config: uvicorn.Config, service: Service, about: str) -> None:
        super().__init__(config)
        self._service, self._about = service, about

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start to listen."""
        await super().startup(sockets)
        logger.info("%s; Ctrl-C stops", self._about)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Answer what is there, then end."""
        self._service.is_stopping = True
        logger.info("stopping: %d images are being answered", self._service.gate.num_images)
        loop = asyncio.get_running_loop()
        waiting = [connection for listener in sockets or () for connection in accepted(listener)]
        for server in self.servers:  # at once: the system resets what comes in between
            server.close()
        for connection in waiting:
            await loop.connect_accepted_socket(self._protocol, connection)
        last = loop.time() + LINGER
        while self.server_state.connections and loop.time() < last:
            await asyncio.sleep(0.01)
        await super().shutdown(sockets)

    def _protocol(self) -> asyncio.Protocol:
        """What speaks HTTP on a connection."""
        protocol: asyncio.Protocol = H11Protocol(self.config, self.server_state, self.lifespan.state)
        return protocol


def accepted(listener: socket.socket) -> Iterator[socket.socket]:
    """Accept the connections that are waiting at a socket that does not block."""
    with suppress(BlockingIOError):
        while True:
            connection, _ = listener.accept()
            connection.setblocking(False)
            yield connection


def run_server(app: FastAPI, listener: socket.socket, about: str) -> None:
    """Serve until Ctrl-C or SIGTERM; a second Ctrl-C ends at once.

    Args:
        app: From `create_app`.
        listener: From `bind`.
        about: Logged once it listens.
    """
    service: Service = app.state.service
    config = uvicorn.Config(
        app,
        loop="asyncio",
        http="h11",
        log_config=None,
        access_log=False,
        server_header=False,
        ws="none",
        timeout_keep_alive=KEEP_ALIVE,
        timeout_graceful_shutdown=round(2 * service.limits.timeout) + 1,
    )
    with suppress(KeyboardInterrupt):  # the signal, which uvicorn may raise again once it has stopped
        Server(config, service, about).run([listener])
    logger.info("stopped")
