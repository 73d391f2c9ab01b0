"""The same document from Flask alone, in the server that we run: what the framework costs.

`python -m infra.local.benching.bare_flask PORT DOCUMENT`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from flask import Flask, Response

from shared.web.server import Server


def main() -> None:
    """Serve until killed."""
    port, path = int(sys.argv[1]), Path(sys.argv[2])
    document = json.loads(path.read_text(encoding="utf-8"))
    app = Flask("bare")

    @app.get("/api/v1/config/rulesets/<name>")
    def read(name: str) -> Response:
        return Response(json.dumps(document), mimetype="application/json")

    Server("127.0.0.1", port, lambda: app, in_turn=True).run()


if __name__ == "__main__":
    main()
