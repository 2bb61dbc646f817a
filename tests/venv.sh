#!/usr/bin/env bash
# A virtual environment: venv.sh PYTHON DIR. Debian splits ensurepip into a package of its own; get it where we may.
set -euo pipefail
python=$1 dir=$2
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
  echo "Python 3.11 or newer is needed; $python is $("$python" --version 2>&1). Name another: make PYTHON=python3.12 …" >&2
  exit 2
}
if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "installing python3-venv" >&2
    { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq python3-venv; } >/dev/null
  else
    echo "This Python has no ensurepip. Install it first: sudo apt-get install python3-venv" >&2
    exit 2
  fi
fi
"$python" -m venv "$dir"
