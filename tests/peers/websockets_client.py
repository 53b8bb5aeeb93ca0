"""A client of the wire in a few lines of another language: asks the server at argv[1] everything and checks every answer.

Prints "ok" where all is well; ends with an AssertionError where it is not.
"""

import asyncio
import json
import sys
import time

from websockets.asyncio.client import connect

CONTENT = 'grüße "\\\n\U0001f30a'


async def main(url):
    # It offers compression, as it always does; its own pings would be among ours.
    async with connect(url, subprotocols=["chat"], ping_interval=None) as socket:
        headers = socket.response.headers
        assert socket.subprotocol is None and "Sec-WebSocket-Extensions" not in headers, headers

        async def ask(request):
            await socket.send(request if isinstance(request, (str, bytes)) else json.dumps(request))
            return await answered()

        async def answered():
            text = await asyncio.wait_for(socket.recv(), 30)
            assert isinstance(text, str), text
            answer = json.loads(text)
            print(answer)
            return answer

        sent = time.time()
        for n, length in enumerate([0, 1, 200, 70_000]):
            request = json.dumps({
                "type": "throughput_test",
                "message_id": f"python-{n}",
                "sequence_id": n,
                "content": CONTENT + "x" * length,
                "client_id": "python",
                "send_time": sent,
            }, ensure_ascii=False)
            pongs = []

            # In fragments, with a ping and a pong between them.
            async def fragments():
                middle = len(request) // 2
                yield request[:7]
                pongs.append(await socket.ping(b"between %d" % n))
                yield request[7:middle]
                await socket.pong(b"nobody asked")
                yield ""
                yield request[middle:]

            await socket.send(fragments())
            answer = await answered()
            # The ping came before the end of the text, so its pong comes before the answer.
            assert len(pongs) == 1 and pongs[0].done(), pongs
            assert answer["type"] == "throughput_response"
            assert (answer["message_id"], answer["sequence_id"]) == (f"python-{n}", n)
            assert isinstance(answer["server_time"], float) and isinstance(answer["queue_depth"], int)

        answer = await ask({"type": "latency_probe", "message_id": "probe", "send_time": sent})
        assert (answer["type"], answer["message_id"]) == ("latency_response", "probe")
        assert abs(answer["client_send_time"] - sent) < 1e-6
        assert answer["server_receive_time"] <= answer["server_send_time"]

        user = {"type": "user_message", "message_id": "user-0", "content": CONTENT, "timestamp": sent}
        answer = await ask(user)
        assert (answer["type"], answer["message_id"]) == ("ai_response", "user-0")
        assert answer["content"] == user["content"]
        assert isinstance(answer["processing_time"], (int, float))
        processed = answer["server_timestamp"]
        answer = await ask(user)
        assert (answer["type"], answer["message_id"]) == ("duplicate_rejected", "user-0")
        assert abs(answer["original_timestamp"] - processed) < 10 and answer["timestamp"] >= processed

        answer = await ask({"type": "weather", "message_id": "other", "deep": [{"a": None}]})
        assert (answer["type"], answer["message_id"]) == ("generic_response", "other")
        assert answer["echo"] == {"type": "weather", "message_id": "other", "deep": [{"a": None}]}

        big = {"type": "weather", "message_id": "big", "content": "é" * 100_000}
        assert (await ask(json.dumps(big, ensure_ascii=False)))["echo"] == big

        for frame in ["{not JSON", b"\x00\x01\x02"]:
            answer = await ask(frame)
            assert answer["type"] == "error" and isinstance(answer["timestamp"], float)
        answer = await ask({"type": "get_performance_stats"})
        assert answer["type"] == "performance_stats"
        assert answer["connection_count"] == 1 and answer["error_count"] == 2
        assert answer["uptime"] > 0 and answer["message_count"] >= 8

        await socket.close(4001, "grüße")
        # Ours came first, and the server answers it with the same code.
        closed = socket.protocol.close_rcvd
        assert closed is not None and closed.code == 4001 and not socket.protocol.close_rcvd_then_sent, closed
    print("ok")


asyncio.run(main(sys.argv[1]))
