#!/bin/sh
# Installs what the tests of `tests/cli/third_party.rs` and `tests/cli/brokers.rs` speak with into a directory, which may be deleted at any time:
#
#   sh tests/peers/install.sh python DIR    an environment with websockets and wsproto: DIR/bin/python3
#   sh tests/peers/install.sh node DIR      ws and socket.io: DIR/node_modules
#
# The tests call it themselves where the language is there and the packages are not.
set -eu
case "$1" in
python)
    python3 -m venv "$2"
    "$2/bin/python3" -m pip install --quiet --disable-pip-version-check --retries 1 'websockets>=13,<18' 'wsproto>=1.2,<2'
    ;;
node)
    mkdir -p "$2"
    npm install --prefix "$2" --no-save --silent --no-audit --no-fund --fetch-retries=0 'ws@^8.18' 'socket.io@^4.8'
    ;;
*)
    echo "install.sh: python or node, not $1" >&2
    exit 2
    ;;
esac
