"""Programs that images are made for, and how to see that one runs."""

from __future__ import annotations

COMMANDS = {
    **{name: (name, "--version") for name in ("python3", "pip", "conda", "mamba", "micromamba")},
    **{name: (name, "--version") for name in ("jupyter", "jupyter-lab", "ipython", "pipenv", "uv")},
    **{
        name: (name, "--version") for name in ("git", "curl", "wget", "make", "cmake", "gcc", "g++")
    },
    **{name: (name, "--version") for name in ("R", "Rscript", "julia", "quarto", "node", "npm")},
    **{name: (name, "--version") for name in ("root-config", "gdb", "vim", "jq", "tini")},
    **{name: (name, "--version") for name in ("which", "file", "bzip2", "code-server", "lspci")},
    "kubectl": ("kubectl", "version", "--client"),
    "java": ("java", "-version"),
    "tmux": ("tmux", "-V"),
}
"""Programs that users call by name, with the arguments that show whether they run."""
