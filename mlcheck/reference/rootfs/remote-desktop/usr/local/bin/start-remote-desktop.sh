#!/bin/bash
# Stand-in for TigerVNC and noVNC behind nginx.
mkdir -p "$HOME/Desktop" && cp /opt/install/openmpp.desktop "$HOME/Desktop"
exec /opt/conda/bin/python3 /usr/local/lib/aaw/serve.py "${NB_PREFIX:-/vnc}" / noVNC /healthy /ping
