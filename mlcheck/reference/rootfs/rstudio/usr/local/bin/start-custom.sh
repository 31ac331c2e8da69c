#!/bin/bash
# Stand-in for RStudio Server behind Jupyter's rsession proxy.
exec /opt/conda/bin/python3 /usr/local/lib/aaw/serve.py "$NB_PREFIX" /rstudio "RStudio Server" /ping
