"""One function's process from nothing to its first answer, on the cloud's adapters; prints JSON.

`python -m infra.local.benching.cold_process FUNCTION STORE...` makes the function's application as
its image does, has the clients of the STOREs it uses (documents, objects, bus) ready, and answers a
caller without a token. Nothing is asked of any server.
"""

from __future__ import annotations

import io
import json
import sys
from time import process_time
from typing import Any
from wsgiref.util import setup_testing_defaults

# What makes a client ready without a request: any method of its port.
_METHODS = {"documents": "get", "objects": "open", "bus": "publish"}


def main(function: str, stores: list[str]) -> None:
    """Print CPU seconds of this process so far, of which the interpreter's own start is a part."""
    from infra.images.serve import application
    from shared import bootstrap

    app = application(function)
    ports = bootstrap.from_environment()
    for store in stores:
        getattr(getattr(ports, store), _METHODS[store])
    import_cpu_s = process_time()
    environ: dict[str, Any] = {"REQUEST_METHOD": "POST", "wsgi.input": io.BytesIO(b"{}")}
    setup_testing_defaults(environ)
    statuses: list[str] = []
    list(app(environ, lambda status, headers, *_: statuses.append(status)))
    times = {"import_cpu_s": import_cpu_s, "answer_cpu_s": process_time()}
    print(json.dumps({**times, "status": statuses[0]}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
