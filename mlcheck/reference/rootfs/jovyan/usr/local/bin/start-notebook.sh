#!/bin/bash
# Starts JupyterLab as the image's CMD, with more options behind it.
exec jupyter lab --no-browser --ip=0.0.0.0 --port=8888 \
    --ServerApp.base_url="${NB_PREFIX:-/}" --ServerApp.root_dir="${HOME}" "$@"
