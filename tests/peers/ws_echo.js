// An echo server over ws, the usual library of Node: each message goes back as it came, text or binary.
// Prints its port, serves until standard input closes.
"use strict";
const { WebSocketServer } = require("ws");

const server = new WebSocketServer({ host: "127.0.0.1", port: 0 });
server.on("listening", () => console.log(server.address().port));
server.on("connection", (socket) => {
  socket.on("message", (data, binary) => socket.send(data, { binary }));
});
process.stdin.resume();
process.stdin.on("end", () => process.exit(0));
