"""A server of the wire in a few lines of another language: answers throughput_test and latency_probe, in fragments and with pings.

Prints its port, serves until standard input closes; ends with 1 where a client broke the protocol.
"""

import asyncio
import json
import os
import sys
import time
import zlib

from websockets.asyncio.server import ServerConnection, serve
from websockets.frames import Frame, Opcode


class Connection(ServerConnection):
    """One that remembers what the pongs said: those that answer no ping are else passed over in silence."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.ponged = []

    def process_event(self, event):
        if isinstance(event, Frame) and event.opcode is Opcode.PONG:
            self.ponged.append(bytes(event.data))
        super().process_event(event)


def answer(request):
    common = {"message_id": request["message_id"], "queue_depth": 0}
    if request["type"] == "throughput_test":
        response = {
            "type": "throughput_response",
            "sequence_id": request["sequence_id"],
            "server_time": time.time(),
            "content_crc32": zlib.crc32(request["content"].encode()),
        }
    else:
        assert request["type"] == "latency_probe", request
        response = {
            "type": "latency_response",
            "client_send_time": request["send_time"],
            "server_receive_time": time.time(),
            "server_send_time": time.time(),
        }
    return json.dumps({**response, **common})


async def converse(socket):
    headers = socket.request.headers
    assert "Sec-WebSocket-Protocol" not in headers and "Sec-WebSocket-Extensions" not in headers, headers
    pinged = []

    async def fragments(response):
        yield response[:9]
        pinged.append(b"%d" % len(pinged))
        await socket.ping(pinged[-1])
        yield ""
        yield response[9:]

    # A client that breaks the protocol, or goes without a close frame, ends this with an exception.
    async for text in socket:
        assert isinstance(text, str), text
        await socket.send(fragments(answer(json.loads(text))))
    await socket.wait_closed()
    assert socket.close_code in (1000, 1005), socket.close_code
    # Pings may be answered together by the pong of the last (RFC 6455, section 5.5.3).
    ponged = socket.ponged
    assert ponged and ponged == [payload for payload in pinged if payload in set(ponged)], (pinged, ponged)


async def converse_or_fail(socket):
    try:
        await converse(socket)
    except BaseException as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
        os._exit(1)


async def main():
    # Its own pings would be among ours.
    options = {"create_connection": Connection, "ping_interval": None}
    async with serve(converse_or_fail, "127.0.0.1", 0, **options) as server:
        print(server.sockets[0].getsockname()[1], flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


asyncio.run(main())
