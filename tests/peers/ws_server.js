// A server over ws, the usual library of Node, ready to compress: answers throughput_test, in fragments and with pings.
// Prints its port, serves until standard input closes; ends with an exception where a client breaks the protocol.
"use strict";
const assert = require("node:assert");
const zlib = require("node:zlib");
const { WebSocketServer } = require("ws");

// As in zlib.crc32, which Node has only since version 22.
const table = Array.from({ length: 256 }, (_, n) => {
  for (let bit = 0; bit < 8; bit++) n = n & 1 ? 0xedb88320 ^ (n >>> 1) : n >>> 1;
  return n >>> 0;
});
const crc32 = (text) =>
  (Buffer.from(text).reduce((crc, byte) => table[(crc ^ byte) & 255] ^ (crc >>> 8), 0xffffffff) ^ 0xffffffff) >>> 0;
assert.strictEqual(zlib.crc32 ? zlib.crc32("hello") : 0x3610a686, crc32("hello"));

const server = new WebSocketServer({ host: "127.0.0.1", port: 0, perMessageDeflate: true });
server.on("listening", () => console.log(server.address().port));
server.on("connection", (socket) => {
  let pings = 0;
  let lastPong = -1;
  assert.strictEqual(socket.extensions, "");
  socket.on("message", (data, binary) => {
    assert.strictEqual(binary, false);
    const request = JSON.parse(data.toString());
    const response = JSON.stringify({
      type: "throughput_response",
      message_id: request.message_id,
      sequence_id: request.sequence_id,
      server_time: 1.5,
      queue_depth: 0,
      content_crc32: crc32(request.content),
    });
    socket.send(response.slice(0, 9), { fin: false });
    socket.ping(String(pings++));
    socket.send("", { fin: false });
    socket.send(response.slice(9));
  });
  socket.on("pong", (data) => {
    // Pings may be answered together by the pong of the last (RFC 6455, section 5.5.3).
    assert.ok(Number(data) > lastPong && Number(data) < pings);
    lastPong = Number(data);
  });
  socket.on("close", (code) => assert.ok(lastPong >= 0 && [1000, 1005].includes(code), `closed with ${code}`));
  socket.on("error", (error) => {
    throw error;
  });
});
process.stdin.resume();
process.stdin.on("end", () => process.exit(0));
