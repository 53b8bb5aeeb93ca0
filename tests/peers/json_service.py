"""A JSON service over websockets: wants a login, answers {"ask": id, "text": …}, and tells everybody the time meanwhile.

Prints its port, serves until standard input closes.
"""

import asyncio
import json
import sys
import time

import websockets


async def tell(socket):
    while True:
        await socket.send(json.dumps({"push": {"time": time.time()}}))
        await asyncio.sleep(0.05)


async def serve(socket):
    login = json.loads(await socket.recv())
    if login.get("login") != "s3same":
        await socket.send(json.dumps({"error": "wrong password"}))
        return
    await socket.send(json.dumps({"welcome": True}))
    telling = asyncio.create_task(tell(socket))
    try:
        async for text in socket:
            request = json.loads(text)
            await socket.send(json.dumps({"reply": {"id": request["ask"], "text": request["text"]}}))
    finally:
        telling.cancel()


async def main():
    async with websockets.serve(serve, "127.0.0.1", 0) as server:
        print(server.sockets[0].getsockname()[1], flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


asyncio.run(main())
