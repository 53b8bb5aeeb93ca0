"""A client over wsproto, which does no I/O and takes no liberties: argv[1] is the server's address, HOST:PORT.

Prints "ok" where all is well; ends with an exception where the server breaks the protocol or says something else.
"""

import json
import socket
import sys

from wsproto import ConnectionType, WSConnection
from wsproto.events import (
    AcceptConnection,
    CloseConnection,
    Ping,
    Pong,
    Request,
    TextMessage,
    BytesMessage,
)

host, port = sys.argv[1].rsplit(":", 1)
sock = socket.create_connection((host, int(port)), timeout=30)
connection = WSConnection(ConnectionType.CLIENT)


def send(*events):
    sock.sendall(b"".join(connection.send(event) for event in events))


def events():
    while True:
        connection.receive_data(sock.recv(65536) or None)
        yield from connection.events()


incoming = events()


def answer():
    text = ""
    for event in incoming:
        assert isinstance(event, TextMessage), event
        text += event.data
        if event.message_finished:
            return json.loads(text)


send(Request(host=sys.argv[1], target="/ws", subprotocols=["chat"], extensions=[]))
accepted = next(incoming)
assert isinstance(accepted, AcceptConnection), accepted
assert accepted.subprotocol is None and not accepted.extensions, accepted

content = 'grüße "\\\n\U0001f30a'
for n, length in enumerate([0, 1, 200, 70_000]):
    request = json.dumps({
        "type": "throughput_test",
        "message_id": f"wsproto-{n}",
        "sequence_id": n,
        "content": content + "x" * length,
        "client_id": "wsproto",
        "send_time": 1.5,
    }, ensure_ascii=False)
    middle = len(request) // 2
    # In fragments, with a ping and a pong between them.
    send(
        TextMessage(request[:7], message_finished=False),
        Ping(b"between %d" % n),
        TextMessage(request[7:middle], message_finished=False),
        Pong(b"nobody asked"),
        TextMessage("", message_finished=False),
        TextMessage(request[middle:], message_finished=True),
    )
    pong = next(incoming)
    assert isinstance(pong, Pong) and pong.payload == b"between %d" % n, pong
    response = answer()
    assert (response["type"], response["message_id"]) == ("throughput_response", f"wsproto-{n}"), response

big = {"type": "weather", "message_id": "big", "content": "é" * 100_000}
send(TextMessage(json.dumps(big, ensure_ascii=False)))
assert answer()["echo"] == big

send(BytesMessage(b"\x00\xff"))
assert answer()["type"] == "error"

send(CloseConnection(code=4001, reason="grüße"))
closed = next(incoming)
assert isinstance(closed, CloseConnection) and closed.code == 4001, closed
assert sock.recv(1) == b"", "bytes behind the close frame"
print("ok")
