#!/bin/sh
# Installs what the tests of `tests/cli/third_party.rs` and `tests/cli/brokers.rs` speak with into a directory, which may be deleted at any time:
#
#   sh tests/peers/install.sh python DIR    an environment with websockets and wsproto: DIR/bin/python3
#   sh tests/peers/install.sh node DIR      ws and socket.io: DIR/node_modules
#
#   sh tests/peers/install.sh debian        Mosquitto and NATS, system-wide: for CI, as root
#   sh tests/peers/install.sh rabbitmq      RabbitMQ, with Erlang: the same, but it takes longer than CI has
#
# The tests call the first two themselves where the language is there and the packages are not.
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
debian)
    [ -x /usr/sbin/mosquitto ] && [ -x /usr/sbin/nats-server ] && exit 0
    apt-get update -qq
    # The tests start servers of their own: no service is to run beside them.
    RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends mosquitto nats-server
    ;;
rabbitmq)
    [ -x /usr/sbin/rabbitmq-server ] && exit 0
    apt-get update -qq
    RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends rabbitmq-server
    ;;
*)
    echo "install.sh: python, node, debian or rabbitmq, not $1" >&2
    exit 2
    ;;
esac
