"""Give the home of AXIOM_HOME a configuration: `python -m infra.local.benching.configure FILE`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from shared import bootstrap

if __name__ == "__main__":
    document = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    bootstrap.from_environment().configuration.apply(document, by="bench")
