// A client over ws, the usual library of Node: argv[2] is the server's URL. It offers compression, as it always does.
// Prints "ok" where all is well; ends with an exception where it is not.
"use strict";
const assert = require("node:assert");
const WebSocket = require("ws");

const socket = new WebSocket(process.argv[2]);
const inbox = [];
let waiting = null;
const deliver = (item) => (waiting ? (waiting(item), (waiting = null)) : inbox.push(item));
const next = () => (inbox.length ? Promise.resolve(inbox.shift()) : new Promise((resolve) => (waiting = resolve)));
const answer = async () => {
  const [kind, data, binary] = await next();
  assert.deepStrictEqual([kind, binary], ["message", false]);
  return JSON.parse(data.toString());
};

socket.on("message", (data, binary) => deliver(["message", data, binary]));
socket.on("pong", (data) => deliver(["pong", data.toString()]));
socket.on("close", (code, reason) => deliver(["close", code, reason.toString()]));
socket.on("open", async () => {
  assert.deepStrictEqual([socket.protocol, socket.extensions], ["", ""]);
  for (const [n, length] of [0, 1, 200, 70_000].entries()) {
    const request = JSON.stringify({
      type: "throughput_test",
      message_id: `ws-${n}`,
      sequence_id: n,
      content: 'grüße "\\\n\u{1f30a}' + "x".repeat(length),
      client_id: "ws",
      send_time: 1.5,
    });
    // In fragments, with a ping between them.
    socket.send(request.slice(0, 7), { fin: false });
    socket.ping(`between ${n}`);
    socket.send(request.slice(7, 9), { fin: false });
    socket.send("", { fin: false });
    socket.send(request.slice(9));
    assert.deepStrictEqual(await next(), ["pong", `between ${n}`]);
    const response = await answer();
    assert.deepStrictEqual([response.type, response.message_id], ["throughput_response", `ws-${n}`]);
  }
  const big = { type: "weather", message_id: "big", content: "é".repeat(100_000) };
  socket.send(JSON.stringify(big));
  assert.deepStrictEqual((await answer()).echo, big);
  socket.send(Buffer.from([0, 255]));
  assert.strictEqual((await answer()).type, "error");
  socket.close(4001, "grüße");
  assert.deepStrictEqual((await next()).slice(0, 2), ["close", 4001]);
  console.log("ok");
});
