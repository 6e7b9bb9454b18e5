"""As much of Google Cloud Storage's JSON API, in memory, as gcsfs, TensorStore and google-cloud-storage ask for.

Object names, generations and the conditions on them are as documented (cloud.google.com/storage/docs/json_api/v1).
"""

import itertools
import json
import re
import threading
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl, unquote, urlsplit

# Buckets of these names answer with these errors.
REFUSED = {"forbidden": (403, "it does not have storage.objects.list access"), "login": (401, "Anonymous caller")}


class Server(ThreadingHTTPServer):
    """Serves the buckets in `buckets`, by name each its objects, on a free port, in a `with`."""

    daemon_threads = True

    def handle_error(self, request, client_address):
        """A client that hangs up is no error of the test's; the server's own would reach it as a wrong answer."""

    def __init__(self, *buckets: str):
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.buckets: dict[str, dict[str, dict]] = {bucket: {} for bucket in buckets}
        self.uploads: dict[str, tuple[str, str, bytearray]] = {}
        self.generations = itertools.count(1)
        self.lock = threading.Lock()

    def __enter__(self):
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.shutdown()
        self.server_close()

    def put(self, bucket: str, name: str, content: bytes) -> dict:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        about = {"kind": "storage#object", "bucket": bucket, "name": name, "size": str(len(content)), "updated": now}
        about |= {"generation": str(next(self.generations)), "metageneration": "1", "timeCreated": now}
        self.buckets[bucket][name] = {**about, "content": content}
        return about


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # Head and body in one packet.

    def log_message(self, *_):
        pass

    def answer(self):
        url = urlsplit(self.path)
        self.query = dict(parse_qsl(url.query, keep_blank_values=True))
        self.body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        path = re.fullmatch(r"/(?:(upload|download)/)?storage/v1/b/([^/]+)(?:/o(?:/(.+))?)?", url.path)
        kind, bucket, name = path[1], path[2], unquote(path[3] or "")
        if bucket in REFUSED or bucket not in self.server.buckets:
            code, message = REFUSED.get(bucket, (404, "The specified bucket does not exist."))
            return self.send(code, {"error": {"code": code, "message": message}})
        with self.server.lock:
            if kind == "upload":
                return self.upload(bucket)
            if not url.path.split("/b/")[1].count("/"):
                return self.send(200, {"kind": "storage#bucket", "name": bucket})
            return self.object(bucket, name) if name else self.list(bucket)

    do_GET = do_POST = do_PUT = do_DELETE = answer  # noqa: N815

    def upload(self, bucket: str):
        kind, name = self.query.get("uploadType"), self.query.get("name")
        if "upload_id" in self.query:
            return self.resume(self.query["upload_id"])
        if kind == "resumable":
            number = str(next(self.server.generations))
            self.server.uploads[number] = (bucket, name, bytearray())
            location = f"{self.server.url}/upload/storage/v1/b/{bucket}/o?uploadType=resumable&upload_id={number}"
            return self.send(200, b"", {"Location": location})
        content = self.body
        if kind == "multipart":
            boundary = re.search(r"boundary=[\"']?([^\"';]+)", self.headers["Content-Type"])[1].encode()
            _, first, second, _ = re.split(rb"(?:^|\r?\n)--" + re.escape(boundary) + rb"(?:\r?\n|--)", self.body)
            name = json.loads(re.split(rb"\r?\n\r?\n", first, maxsplit=1)[1])["name"]
            content = re.split(rb"\r?\n\r?\n", second, maxsplit=1)[1]
        if self.fails_condition(self.server.buckets[bucket].get(name)):
            return None
        return self.send(200, self.server.put(bucket, name, content))

    def resume(self, number: str):
        bucket, name, content = self.server.uploads[number]
        content += self.body
        if self.headers.get("Content-Range", "/0").endswith("/*"):
            return self.send(308, b"", {"Range": f"bytes=0-{len(content) - 1}"})
        del self.server.uploads[number]
        return self.send(200, self.server.put(bucket, name, bytes(content)))

    def object(self, bucket: str, name: str):
        there = self.server.buckets[bucket].get(name)
        if self.fails_condition(there):
            return None
        if there is None:
            return self.send(404, {"error": {"code": 404, "message": f"No such object: {bucket}/{name}"}})
        if self.command == "DELETE":
            del self.server.buckets[bucket][name]
            return self.send(204, b"")
        if self.query.get("alt") != "media":
            return self.send(200, about(there))
        content, headers = there["content"], {"X-Goog-Generation": there["generation"]}
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if not wanted:
            return self.send(200, content, headers)
        start, end = int(wanted[1]), min(int(wanted[2] or len(content)), len(content) - 1)
        if start > end:
            return self.send(416, b"")
        headers["Content-Range"] = f"bytes {start}-{end}/{len(content)}"
        return self.send(206, content[start : end + 1], headers)

    def list(self, bucket: str):
        prefix, delimiter = self.query.get("prefix", ""), self.query.get("delimiter")
        start, end = self.query.get("startOffset", ""), self.query.get("endOffset")
        items, prefixes = [], set()
        for name, there in sorted(self.server.buckets[bucket].items()):
            if not name.startswith(prefix) or name < start or (end and name >= end):
                continue
            rest = name[len(prefix) :]
            if delimiter and delimiter in rest:
                prefixes.add(prefix + rest.split(delimiter)[0] + delimiter)
            else:
                items.append(about(there))
        return self.send(200, {"kind": "storage#objects", "items": items, "prefixes": sorted(prefixes)})

    def fails_condition(self, there: dict | None) -> bool:
        generation = there["generation"] if there else "0"
        if self.query.get("ifGenerationMatch", generation) != generation:
            self.send(412, {"error": {"code": 412, "message": "conditionNotMet"}})
            return True
        if self.query.get("ifGenerationNotMatch") == generation:
            self.send(304, b"")
            return True
        return False

    def send(self, code: int, content: dict | bytes, headers: dict[str, str] | None = None):
        content = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(code)
        for name, value in {"Content-Length": str(len(content)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)


def about(there: dict) -> dict:
    return {name: value for name, value in there.items() if name != "content"}
