"""An npm registry on loopback, which holds what is published to it in memory. Prints its port."""

import base64
import http.server
import json
import urllib.parse

packages = {}
tarballs = {}


class Registry(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self, code, body):
        self.send_response(code)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        path = urllib.parse.unquote(urllib.parse.urlsplit(self.path).path)
        if path in tarballs:
            self.answer(200, tarballs[path])
        elif path in packages:
            self.answer(200, json.dumps(packages[path]).encode())
        else:
            self.answer(404, b"{}")

    def do_PUT(self):
        published = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        (attachment,) = published.pop("_attachments").values()
        (version,) = published["versions"].values()
        path = urllib.parse.unquote(urllib.parse.urlsplit(version["dist"]["tarball"]).path)
        tarballs[path] = base64.b64decode(attachment["data"])
        packages["/" + published["name"]] = published
        self.answer(201, b"{}")

    def log_message(self, *_):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Registry)
print(server.server_port, flush=True)
server.serve_forever()
