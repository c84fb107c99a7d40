"""An HTTP cache that takes PUT, and a bucket that takes it only with a good Signature Version 4 (an implementation of its own,
from Amazon's description). Prints its port. Usage: bucket.py DIRECTORY [KEY-ID SECRET]"""

import hashlib
import hmac
import os
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

ROOT, *KEYS = sys.argv[1:]


def mac(key, text):
    return hmac.new(key, text.encode(), hashlib.sha256).digest()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def file(self):
        return os.path.join(ROOT, os.path.normpath(self.path.split("?")[0]).lstrip("/"))

    def answer(self, code, body=b""):
        self.send_response(code)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def is_signed(self, body):
        if not KEYS:
            return True
        told = dict(part.strip().split("=", 1) for part in self.headers.get("Authorization", "").partition(" ")[2].split(",") if "=" in part)
        scope = told.get("Credential", "").split("/")
        if len(scope) != 5 or scope[0] != KEYS[0] or self.headers["x-amz-content-sha256"] != hashlib.sha256(body).hexdigest():
            return False
        names = told["SignedHeaders"].split(";")
        if not {"host", "x-amz-date", "x-amz-content-sha256"} <= set(names):
            return False
        lines = "".join(f"{name}:{self.headers[name].strip()}\n" for name in names)
        path, _, query = self.path.partition("?")
        request = "\n".join([self.command, path, query, lines, told["SignedHeaders"], hashlib.sha256(body).hexdigest()])
        text = "\n".join(["AWS4-HMAC-SHA256", self.headers["x-amz-date"], "/".join(scope[1:]), hashlib.sha256(request.encode()).hexdigest()])
        key = ("AWS4" + KEYS[1]).encode()
        for part in scope[1:]:
            key = mac(key, part)
        return hmac.compare_digest(mac(key, text).hex(), told["Signature"])

    def do_GET(self):
        if not self.is_signed(b""):
            return self.answer(403)
        try:
            with open(self.file(), "rb") as file:
                self.answer(200, file.read())
        except OSError:
            self.answer(404)

    do_HEAD = do_GET

    def do_PUT(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if not self.is_signed(body):
            return self.answer(403)
        os.makedirs(os.path.dirname(self.file()), exist_ok=True)
        with open(self.file(), "wb") as file:
            file.write(body)
        self.answer(200)


server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print(server.server_address[1], flush=True)
server.serve_forever()
