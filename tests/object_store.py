"""A real server of S3 on loopback, and stores that do not do their work."""

from __future__ import annotations

import contextlib
import http.client
import http.server
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator

import s3fs

from tests.kernel.started import Started

__all__ = ["BUCKET", "URL", "deaf_store", "environment", "files_of", "s3_server", "withholding"]

BUCKET = "traces"
URL = f"s3://{BUCKET}/dumps"


def environment(port: int) -> dict[str, str]:
    """What makes a process find the store on a port; there is no other one that it may find."""
    return {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "somebody",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_MAX_ATTEMPTS": "1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }


@contextlib.contextmanager
def s3_server() -> Iterator[int]:
    """Moto's server with one bucket, in a process of its own; its port."""
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"]
    with Started(command, stderr=subprocess.PIPE, text=True) as running:
        assert running.stderr is not None
        lines = iter(running.stderr.readline, "")
        found = (re.search(r"http://127\.0\.0\.1:(\d+)", line) for line in lines)
        port = next(int(match[1]) for match in found if match is not None)
        # What it says of each request is read, so that it never waits for that.
        reading = threading.Thread(target=running.stderr.read)
        reading.start()
        connection = http.client.HTTPConnection("127.0.0.1", port)
        connection.request("PUT", f"/{BUCKET}")
        assert connection.getresponse().status == 200
        connection.close()
        yield port
        running.kill()
        reading.join()


def files_of(port: int) -> dict[str, bytes]:
    """All that a store has, by path below :data:`URL`."""
    store = s3fs.S3FileSystem(
        endpoint_url=f"http://127.0.0.1:{port}",
        key="somebody",
        secret="secret",
        client_kwargs={"region_name": "us-east-1"},
        use_listings_cache=False,
        skip_instance_cache=True,
    )
    root = URL.removeprefix("s3://")
    return {path.removeprefix(f"{root}/"): store.cat_file(path) for path in store.find(root)}


@contextlib.contextmanager
def deaf_store() -> Iterator[int]:
    """Accepts connections, as the kernel does for who listens, and never answers; its port."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listening:
        yield int(listening.getsockname()[1])


@contextlib.contextmanager
def withholding(port: int, asked: threading.Event) -> Iterator[int]:
    """A way to the store on ``port`` that never passes a manifest on; its own port.

    Args:
        port: of the store.
        asked: is set when a manifest was to be passed on.
    """

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            if self.headers.get("Expect"):
                self.send_response_only(100)
                self.end_headers()
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if self.command == "PUT" and self.path.partition("?")[0].endswith("/manifest.json"):
                asked.set()
                self.rfile.read(1)  # until the client is gone
                self.close_connection = True
                return
            store = http.client.HTTPConnection("127.0.0.1", port)
            store.request(self.command, self.path, body, dict(self.headers))
            told = store.getresponse()
            text = told.read()
            self.send_response_only(told.status)
            for name, value in told.getheaders():
                if name.lower() not in ("content-length", "transfer-encoding", "connection"):
                    self.send_header(name, value)
            length = told.getheader("Content-Length") if self.command == "HEAD" else None
            self.send_header("Content-Length", length or str(len(text)))
            self.end_headers()
            self.wfile.write(text)
            store.close()

        do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = answer  # noqa: N815 - as http.server has it

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        yield int(server.server_address[1])
        server.shutdown()
        serving.join()
