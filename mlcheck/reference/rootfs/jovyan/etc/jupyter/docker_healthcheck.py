#!/opt/conda/bin/python3
"""Ask the server at the address that it wrote down when it started, as docker-stacks' does: it is
looked for in the home of NB_USER by its path, whatever the user of this process and its settings.
"""

import json
import os
import urllib.request
from pathlib import Path

runtime = Path("/home/") / os.environ["NB_USER"] / ".local/share/jupyter/runtime/"
address = json.loads(next(runtime.glob("*server-*.json")).read_text())["url"]
urllib.request.build_opener(urllib.request.ProxyHandler({})).open(f"{address}api", timeout=3)
