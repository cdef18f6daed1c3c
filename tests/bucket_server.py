"""A server of S3's protocol on the loopback, in memory, that can be made to fail."""

from __future__ import annotations

import hashlib
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

import pytest

Answer = tuple[int, bytes]  # status and body
CUT = -1  # status of an answer that breaks off in its middle


@dataclass
class Buckets:
    """What the server holds, and how it is to fail."""

    objects: dict[str, dict[str, tuple[bytes, float]]] = field(default_factory=dict)  # bucket -> key -> it
    requests: list[tuple[str, str]] = field(default_factory=list)  # method and path with its query
    refuse: Callable[[str, str], Answer | None] = lambda method, path: None
    uploads: dict[str, dict[int, bytes]] = field(default_factory=dict)
    endpoint: str = ""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def put(self, bucket: str, key: str, content: bytes) -> None:
        self.objects.setdefault(bucket, {})[key] = (content, time.time())

    def keys(self, bucket: str, prefix: str = "") -> list[str]:
        """Of real objects: Arrow leaves empty ones that stand for folders."""
        with self.lock:
            return sorted(k for k in self.objects[bucket] if k.startswith(prefix) and not k.endswith("/"))

    def read(self, bucket: str, key: str) -> bytes:
        return self.objects[bucket][key][0]

    def reached_by(self, patch: pytest.MonkeyPatch) -> None:
        """The environment of a process that is to find this server, with credentials."""
        patch.setenv("AWS_ENDPOINT_URL", self.endpoint)
        patch.setenv("AWS_ACCESS_KEY_ID", "who")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "hush")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")


def error(code: str, message: str = "no") -> bytes:
    return f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{message}</Message></Error>".encode()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    held: Buckets

    def log_message(self, *_: object) -> None:
        """Nothing."""

    def _do(self) -> None:
        body = self._body()
        self.held.requests.append((self.command, self.path))
        parts = urlsplit(self.path)
        bucket, _, key = unquote(parts.path).lstrip("/").partition("/")
        query = {name: values[0] for name, values in parse_qs(parts.query, keep_blank_values=True).items()}
        if (refused := self.held.refuse(self.command, self.path)) is not None and refused[0] != CUT:
            self._answer(*refused)
        elif bucket not in self.held.objects:
            self._answer(404, error("NoSuchBucket", "The specified bucket does not exist"))
        else:
            with self.held.lock:
                answer = (
                    self._of_bucket(bucket, query, body)
                    if not key
                    else self._of_key(bucket, key, query, body)
                )
            self._answer(*answer, cut=refused is not None)

    do_GET = do_PUT = do_HEAD = do_DELETE = do_POST = _do

    def _of_bucket(
        self, bucket: str, query: dict[str, str], body: bytes
    ) -> tuple[int, bytes, dict[str, str]]:
        objects = self.held.objects[bucket]
        if self.command == "POST" and "delete" in query:
            for key in re.findall(rb"<Key>(.*?)</Key>", body):
                objects.pop(key.decode(), None)
            return 200, b"<DeleteResult></DeleteResult>", {}
        if self.command != "GET":
            return 200, b"", {}
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
        after, most = query.get("continuation-token", ""), int(query.get("max-keys", "1000"))
        keys = sorted(key for key in objects if key.startswith(prefix) and key > after)
        folders = sorted(
            {
                prefix + key[len(prefix) :].partition(delimiter)[0] + delimiter
                for key in keys
                if delimiter in key[len(prefix) :]
            }
            if delimiter
            else ()
        )
        plain = [key for key in keys if not (delimiter and delimiter in key[len(prefix) :])]
        shown, more = plain[:most], len(plain) > most
        rows = "".join(
            f"<Contents><Key>{escape(key)}</Key><Size>{len(objects[key][0])}</Size><LastModified>"
            f"{time.strftime('%Y-%m-%dT%H:%M:%S.000Z', time.gmtime(objects[key][1]))}</LastModified>"
            f"<ETag>&quot;{hashlib.md5(objects[key][0]).hexdigest()}&quot;</ETag></Contents>"
            for key in shown
        )
        rows += "".join(f"<CommonPrefixes><Prefix>{escape(one)}</Prefix></CommonPrefixes>" for one in folders)
        token = f"<NextContinuationToken>{escape(shown[-1])}</NextContinuationToken>" if more else ""
        return (
            200,
            f"<?xml version='1.0'?><ListBucketResult><Name>{bucket}</Name><Prefix>{escape(prefix)}</Prefix>"
            f"<KeyCount>{len(shown) + len(folders)}</KeyCount><MaxKeys>{most}</MaxKeys>"
            f"<IsTruncated>{str(more).lower()}</IsTruncated>{token}{rows}</ListBucketResult>".encode(),
            {},
        )

    def _of_key(
        self, bucket: str, key: str, query: dict[str, str], body: bytes
    ) -> tuple[int, bytes, dict[str, str]]:
        objects = self.held.objects[bucket]
        upload = query.get("uploadId", "")
        match self.command:
            case "POST" if "uploads" in query:
                name = f"upload-{len(self.held.uploads)}"
                self.held.uploads[name] = {}
                inside = f"<Bucket>{bucket}</Bucket><Key>{escape(key)}</Key><UploadId>{name}</UploadId>"
                return (
                    200,
                    f"<InitiateMultipartUploadResult>{inside}</InitiateMultipartUploadResult>".encode(),
                    {},
                )
            case "POST":
                whole = b"".join(part for _, part in sorted(self.held.uploads.pop(upload).items()))
                objects[key] = (whole, time.time())
                etag = f"<ETag>&quot;{hashlib.md5(whole).hexdigest()}&quot;</ETag>"
                return (
                    200,
                    f"<CompleteMultipartUploadResult>{etag}</CompleteMultipartUploadResult>".encode(),
                    {},
                )
            case "PUT" if upload:
                self.held.uploads[upload][int(query["partNumber"])] = body
                return 200, b"", {"ETag": f'"{hashlib.md5(body).hexdigest()}"'}
            case "PUT":
                objects[key] = (body, time.time())
                return 200, b"", {"ETag": f'"{hashlib.md5(body).hexdigest()}"'}
            case "DELETE":
                self.held.uploads.pop(upload, None) if upload else objects.pop(key, None)
                return 204, b"", {}
        if key not in objects:
            return 404, error("NoSuchKey", "The specified key does not exist."), {}
        content, changed = objects[key]
        headers = {
            "Last-Modified": formatdate(changed, usegmt=True),
            "ETag": f'"{hashlib.md5(content).hexdigest()}"',
        }
        if found := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
            start, end = int(found[1]), min(int(found[2] or len(content) - 1), len(content) - 1)
            if start >= len(content):
                return 416, error("InvalidRange"), {}
            return (
                206,
                content[start : end + 1],
                headers | {"Content-Range": f"bytes {start}-{end}/{len(content)}"},
            )
        return 200, content, headers

    def _body(self) -> bytes:
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            content = b""
            while size := int(self.rfile.readline().split(b";")[0], 16):
                content += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        else:
            content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        return _unchunked(content) if "aws-chunked" in self.headers.get("Content-Encoding", "") else content

    def _answer(
        self, status: int, body: bytes, headers: dict[str, str] | None = None, cut: bool = False
    ) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        if status != 204:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[: len(body) // 2] if cut else body)
        if cut:
            self.close_connection = True


def _unchunked(content: bytes) -> bytes:
    """What the SDK sends in chunks with a signature or a checksum each."""
    parts, at = [], 0
    while at < len(content):
        end = content.index(b"\r\n", at)
        size = int(content[at:end].split(b";")[0] or b"0", 16)
        if not size:
            break
        parts.append(content[end + 2 : end + 2 + size])
        at = end + 2 + size + 2
    return b"".join(parts)


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """A client that was killed has gone."""


@contextmanager
def bucket_server(*buckets: str) -> Iterator[Buckets]:
    """A server that holds some empty buckets; `endpoint` is where it is."""
    held = Buckets({name: {} for name in buckets})
    server = _Server(("127.0.0.1", 0), type("Handler", (_Handler,), {"held": held}))
    held.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=lambda: server.serve_forever(poll_interval=0.02), daemon=True)
    thread.start()
    try:
        yield held
    finally:
        server.shutdown()
        server.server_close()
