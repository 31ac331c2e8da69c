#!/opt/conda/bin/python3
"""Whether the server answers: asks the address that it has written down when it started."""

import json
import os
import sys
import urllib.request
from pathlib import Path

home = Path(os.environ.get("JUPYTER_RUNTIME_DIR") or Path.home() / ".local/share/jupyter/runtime")
files = list(home.glob("*server-*.json"))
if not files:
    sys.exit("no server has written down its address")
address = json.loads(files[0].read_text())["url"]
urllib.request.build_opener(urllib.request.ProxyHandler({})).open(address + "api", timeout=3)
