"""Stands before fake-gcs-server: `gcs_uploads.py PORT SERVER_PORT`.

fake-gcs-server reads, lists and deletes by Google's XML API, but takes uploads by the JSON API alone. What object_store
uploads (whole objects, with a condition or without, and in parts) becomes uploads of the JSON API here; all else is
handed on as it is.
"""

import http.client
import itertools
import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, quote, unquote, urlsplit
from xml.etree import ElementTree

SERVER = int(sys.argv[2])
uploads: dict[str, dict[int, bytes]] = {}
numbers = itertools.count(1)
lock = threading.Lock()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do(self):
        url = urlsplit(self.path)
        query = parse_qs(url.query, keep_blank_values=True)
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        bucket, _, name = url.path.lstrip("/").partition("/")
        name = unquote(name)
        upload = query.get("uploadId", [""])[0]
        if self.command == "PUT" and upload:
            number = int(query["partNumber"][0])
            with lock:
                uploads[upload][number] = body
            self.answer(200, b"", {"etag": f'"{upload}-{number}"'})
        elif self.command == "POST" and "uploads" in query:
            with lock:
                upload = str(next(numbers))
                uploads[upload] = {}
            text = f"<InitiateMultipartUploadResult><UploadId>{upload}</UploadId></InitiateMultipartUploadResult>"
            self.answer(200, text.encode(), {"content-type": "application/xml"})
        elif self.command == "POST" and upload:
            wanted = [int(n.text) for n in ElementTree.fromstring(body).iter() if n.tag.endswith("PartNumber")]
            with lock:
                parts = uploads.pop(upload)
            status, made = self.insert(bucket, name, b"".join(parts[n] for n in wanted))
            text = f"<CompleteMultipartUploadResult><ETag>{made.get('etag', '')}</ETag></CompleteMultipartUploadResult>"
            self.answer(status, text.encode(), version(made))
        elif self.command == "DELETE" and upload:
            with lock:
                uploads.pop(upload, None)
            self.answer(204, b"", {})
        elif self.command == "PUT" and name and "x-goog-copy-source" not in self.headers:
            status, made = self.insert(bucket, name, body, self.headers.get("x-goog-if-generation-match"))
            self.answer(status, b"", version(made))
        else:
            status, answer, headers = call(self.command, self.path, body, dict(self.headers))
            dropped = {"transfer-encoding", "connection", "date", "server"}
            if self.command != "HEAD":
                dropped.add("content-length")
            self.answer(status, answer, {k: v for k, v in headers if k.lower() not in dropped})

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = do

    def insert(self, bucket, name, body, generation=None):
        condition = f"&ifGenerationMatch={generation}" if generation is not None else ""
        path = f"/upload/storage/v1/b/{bucket}/o?uploadType=media&name={quote(name, safe='')}{condition}"
        status, answer, _ = call("POST", path, body, {"content-type": "application/octet-stream"})
        return status, json.loads(answer) if status == 200 else {}

    def answer(self, status, body, headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if "content-length" not in {name.lower() for name in headers}:
            self.send_header("content-length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_):
        pass


def version(made):
    return {"etag": made.get("etag", '""'), "x-goog-generation": str(made.get("generation", 0))}


def call(method, path, body, headers):
    connection = http.client.HTTPConnection("127.0.0.1", SERVER)
    others = {name: value for name, value in headers.items() if name.lower() != "host"}
    connection.request(method, path, body, {**others, "host": f"127.0.0.1:{SERVER}"})
    response = connection.getresponse()
    answer = response.read()
    connection.close()
    return response.status, answer, response.getheaders()


ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
