#!/bin/bash
# Starts the server under the prefix that Kubeflow gives: once for a home, the shell is set up.
if [ ! -f "$HOME/.zsh-installed" ]; then
    cat /etc/share/aaw/shell_helpers.sh >> "$HOME/.bashrc"
    touch "$HOME/.zsh-installed"
fi 2>/dev/null

if [ ! -d "$HOME/.local/share/code-server/Machine" ]; then
    mkdir -p "$HOME/.local/share/code-server"
    cp -r "$CS_TEMP_HOME/." "$HOME/.local/share/code-server"
fi 2>/dev/null

NB_NAMESPACE=$(echo "$NB_PREFIX" | awk -F/ '{print $3}')
export NB_NAMESPACE

exec /opt/conda/bin/jupyter server --no-browser --ip=0.0.0.0 --port=8888 \
    --ServerApp.root_dir="$HOME" \
    --IdentityProvider.token='' \
    --ServerApp.password='' \
    --ServerApp.allow_origin='*' \
    --ServerApp.base_url="$NB_PREFIX" \
    --ServerApp.default_url="${DEFAULT_JUPYTER_URL:-/tree}"
