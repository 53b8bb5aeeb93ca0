"""A server over wsproto, which does no I/O and takes no liberties: answers throughput_test, in fragments and with pings.

Prints its port, serves until standard input closes; ends with 1 where a client broke the protocol.
"""

import json
import os
import socket
import sys
import threading
import zlib

from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, CloseConnection, Ping, Pong, Request, TextMessage


def answer(text):
    request = json.loads(text)
    return json.dumps({
        "type": "throughput_response",
        "message_id": request["message_id"],
        "sequence_id": request["sequence_id"],
        "server_time": 1.5,
        "queue_depth": 0,
        "content_crc32": zlib.crc32(request["content"].encode()),
    })


def serve(sock):
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection = WSConnection(ConnectionType.SERVER)
    text, pinged, ponged = "", [], []
    while True:
        data = sock.recv(65536)
        assert data, "the client went without a close frame"
        connection.receive_data(data)
        out = b""
        for event in connection.events():
            if isinstance(event, Request):
                assert not event.subprotocols and not event.extensions, event
                out += connection.send(AcceptConnection())
            elif isinstance(event, TextMessage):
                text += event.data
                if event.message_finished:
                    response, payload = answer(text), b"%d" % len(pinged)
                    text = ""
                    pinged.append(payload)
                    out += connection.send(TextMessage(response[:9], message_finished=False))
                    out += connection.send(Ping(payload))
                    out += connection.send(TextMessage("", message_finished=False))
                    out += connection.send(TextMessage(response[9:], message_finished=True))
            elif isinstance(event, Pong):
                # Pings may be answered together by the pong of the last (RFC 6455, section 5.5.3).
                ponged.append(bytes(event.payload))
            elif isinstance(event, CloseConnection):
                try:
                    sock.sendall(out + connection.send(event.response()))
                except OSError:
                    pass  # A client that has said goodbye need not wait to hear ours.
                finally:
                    sock.close()
                assert ponged and ponged == [payload for payload in pinged if payload in set(ponged)], (pinged, ponged)
                return
            else:
                raise AssertionError(event)
        sock.sendall(out)


def serve_or_fail(sock):
    try:
        serve(sock)
    except BaseException as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
        os._exit(1)


def listen(listener):
    while True:
        sock, _ = listener.accept()
        threading.Thread(target=serve_or_fail, args=(sock,), daemon=True).start()


listener = socket.create_server(("127.0.0.1", 0))
threading.Thread(target=listen, args=(listener,), daemon=True).start()
print(listener.getsockname()[1], flush=True)
sys.stdin.read()
