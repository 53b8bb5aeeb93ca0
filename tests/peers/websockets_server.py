"""A server of the wire in a few lines of another language: answers throughput_test and latency_probe.

Prints its port, serves until standard input closes.
"""

import asyncio
import json
import sys
import time
import zlib

import websockets


async def answer(socket):
    async for text in socket:
        request = json.loads(text)
        common = {"message_id": request["message_id"], "queue_depth": 0}
        if request["type"] == "throughput_test":
            response = {
                "type": "throughput_response",
                "sequence_id": request["sequence_id"],
                "server_time": time.time(),
                "content_crc32": zlib.crc32(request["content"].encode()),
            }
        else:
            response = {
                "type": "latency_response",
                "client_send_time": request["send_time"],
                "server_receive_time": time.time(),
                "server_send_time": time.time(),
            }
        await socket.send(json.dumps({**response, **common}))


async def main():
    async with websockets.serve(answer, "127.0.0.1", 0) as server:
        print(server.sockets[0].getsockname()[1], flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


asyncio.run(main())
