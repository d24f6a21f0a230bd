#!/bin/sh
# Installs what the trainer needs: ./install.sh VENV [--no-node]
# VENV is a folder for the Python environment (made when absent; 3.11 or newer). The renderer's packages go beside it.
set -eu
venv=${1:?"usage: install.sh VENV [--no-node]"}
here=$(cd "$(dirname "$0")" && pwd)
[ -x "$venv/bin/python" ] || python3 -m venv "$venv"
"$venv/bin/python" -m pip install --quiet --requirement "$here/requirements.txt"
"$venv/bin/python" -c 'import torch, numpy, safetensors, PIL; print("torch", torch.__version__)'
if [ "${2:-}" != --no-node ]; then
  if command -v npm >/dev/null; then (cd "$here/avatars" && npm ci --no-progress)
  else echo "npm is not installed: pictures can be packed from a folder, the avatars cannot be drawn" >&2; fi
fi
