"""A client of the wire in a few lines of another language: asks the server at argv[1] everything and checks every answer.

Prints "ok" where all is well; ends with an AssertionError where it is not.
"""

import asyncio
import json
import sys
import time

import websockets


async def main(url):
    async with websockets.connect(url) as socket:

        async def ask(request):
            await socket.send(request if isinstance(request, (str, bytes)) else json.dumps(request))
            answer = json.loads(await asyncio.wait_for(socket.recv(), 30))
            print(answer)
            return answer

        sent = time.time()
        for n in range(3):
            answer = await ask({
                "type": "throughput_test",
                "message_id": f"python-{n}",
                "sequence_id": n,
                "content": "grüße \"\\\n\U0001f30a",
                "client_id": "python",
                "send_time": sent,
            })
            assert answer["type"] == "throughput_response"
            assert (answer["message_id"], answer["sequence_id"]) == (f"python-{n}", n)
            assert isinstance(answer["server_time"], float) and isinstance(answer["queue_depth"], int)

        answer = await ask({"type": "latency_probe", "message_id": "probe", "send_time": sent})
        assert (answer["type"], answer["message_id"]) == ("latency_response", "probe")
        assert abs(answer["client_send_time"] - sent) < 1e-6
        assert answer["server_receive_time"] <= answer["server_send_time"]

        user = {"type": "user_message", "message_id": "user-0", "content": "grüße \"\\\n\U0001f30a", "timestamp": sent}
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

        for frame in ["{not JSON", b"\x00\x01\x02"]:
            answer = await ask(frame)
            assert answer["type"] == "error" and isinstance(answer["timestamp"], float)
        answer = await ask({"type": "get_performance_stats"})
        assert answer["type"] == "performance_stats"
        assert answer["connection_count"] == 1 and answer["error_count"] == 2
        assert answer["uptime"] > 0 and answer["message_count"] >= 8
    print("ok")


asyncio.run(main(sys.argv[1]))
