"""A server of files whose answers break off."""

import hashlib
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class _Quiet(ThreadingHTTPServer):
    def handle_error(self, request, client_address) -> None:
        """A client that hangs up is what these tests are about."""


class Server:
    """Files by path. cuts: bytes after which each request is cut off, in turn. answers: statuses instead, in turn."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.cuts: list[int] = []
        self.answers: list[int] = []
        self.knows_ranges = True
        self.weak = False
        self.length: str | None = "Content-Length"
        self.requests: list[tuple[str, str | None]] = []  # (path, Range)
        self.before_answer = lambda: None
        self._http = _Quiet(("127.0.0.1", 0), self._handler())
        self.address = f"http://127.0.0.1:{self._http.server_port}"
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None:
                pass

            def do_GET(self) -> None:
                server.requests.append((self.path, self.headers.get("Range")))
                server.before_answer()
                content = server.files.get(self.path)
                status = server.answers.pop(0) if server.answers else 200 if content is not None else 404
                if content is None or status != 200:
                    self.send_response(status)
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                etag = ("W/" if server.weak else "") + f'"{hashlib.md5(content).hexdigest()}"'
                start = 0
                asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")
                if server.knows_ranges and asked and self.headers["If-Range"] == etag:
                    start = int(asked[1])
                self.send_response(206 if start else 200)
                if start:
                    self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
                self.send_header("ETag", etag)
                body = content[start:]
                if server.length == "Content-Length":
                    self.send_header("Content-Length", str(len(body)))
                elif server.length == "chunked":
                    self.send_header("Transfer-Encoding", "chunked")
                    body = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
                self.end_headers()
                self.close_connection = server.length is None
                if server.cuts:
                    body = body[: server.cuts.pop(0)]
                    self.close_connection = True
                self.wfile.write(body)

        return Handler
