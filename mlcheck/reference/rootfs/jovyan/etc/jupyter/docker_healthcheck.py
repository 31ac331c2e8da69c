#!/opt/conda/bin/python3
"""Ask the server at the address that it wrote down when it started.

The address is read from the home of NB_USER, whatever the user of this process: an engine may run
it as root.
"""

import json
import os
import urllib.request
from pathlib import Path

from jupyter_core.paths import jupyter_runtime_dir

os.environ["HOME"] = f"/home/{os.environ['NB_USER']}"
address = json.loads(next(Path(jupyter_runtime_dir()).glob("*server-*.json")).read_text())["url"]
urllib.request.build_opener(urllib.request.ProxyHandler({})).open(f"{address}api", timeout=3)
