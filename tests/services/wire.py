"""A relay between worker and broker that a test can cut or silence."""

from __future__ import annotations

import socket
import threading


class Wire:
    """A TCP relay on loopback that can be cut, or go silent without anybody being told."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self.silent = threading.Event()
        self._pairs: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def cut(self) -> None:
        """Reset every connection."""
        for end in self._pairs:
            end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            with_no_error(end.shutdown, socket.SHUT_RDWR)

    def close(self) -> None:
        """Cut, and take no further connections."""
        with_no_error(self._listener.shutdown, socket.SHUT_RDWR)
        self._listener.close()
        self.cut()
        for thread in self._threads:
            thread.join(10)
        for end in self._pairs:
            end.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            far = socket.create_connection(("127.0.0.1", self._target))
            self._pairs += [near, far]
            for source, sink in ((near, far), (far, near)):
                thread = threading.Thread(target=self._relay, args=(source, sink))
                self._threads.append(thread)
                thread.start()

    def _relay(self, source: socket.socket, sink: socket.socket) -> None:
        try:
            while chunk := source.recv(65_536):
                if not self.silent.is_set():
                    sink.sendall(chunk)
        except OSError:
            pass
        with_no_error(sink.shutdown, socket.SHUT_RDWR)


def with_no_error(call: object, *arguments: object) -> None:
    """Call it; a socket that is closed already is no matter."""
    assert callable(call)
    try:
        call(*arguments)
    except OSError:
        return
