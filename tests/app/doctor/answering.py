"""A server that says what it is told to say."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def answering(*answers: tuple[int, bytes]) -> Iterator[tuple[str, list[bytes]]]:
    """A server on loopback that gives each request the next answer; its URL, and what it heard."""
    heard: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            for status, body in answers:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    connection.settimeout(5)
                    try:
                        request = connection.recv(65536)
                    except OSError:
                        request = b""
                    heard.append(request)
                    if request:
                        head = f"HTTP/1.1 {status} X\r\ncontent-type: application/json\r\n"
                        head += f"content-length: {len(body)}\r\n\r\n"
                        connection.sendall(head.encode() + body)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}", heard
        if answers:
            thread.join(5)
