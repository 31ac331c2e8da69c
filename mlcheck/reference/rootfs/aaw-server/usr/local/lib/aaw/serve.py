"""Stand-in for the server of an image's pages, behind nginx or Jupyter's proxies.

Arguments: the prefix of all URLs, the page below it, its title, and paths that answer 200.
"""

import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PREFIX, PAGE, TITLE, *HEALTHY = sys.argv[1:]


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == f"{PREFIX}/" and PAGE != "/":
            self.send_response(302)
            self.send_header("Location", f"{PREFIX}{PAGE}")
            self.end_headers()
            return
        known = self.path in HEALTHY or self.path == PREFIX + PAGE
        body = f"<!DOCTYPE html><title>{TITLE}</title>" if known else "not here"
        self.send_response(200 if known else 404)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_):
        pass


ThreadingHTTPServer(("0.0.0.0", 8888), Handler).serve_forever()  # noqa: S104 - a container's port
