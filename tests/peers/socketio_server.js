// A Socket.IO server: acknowledges each "message" with what came, joins nobody to "/closed", pings every 300 ms.
// Prints its port, serves until standard input closes.
"use strict";
const { createServer } = require("node:http");
const { Server } = require("socket.io");

const http = createServer();
const io = new Server(http, { transports: ["websocket"], pingInterval: 300, pingTimeout: 2000 });
io.on("connection", (socket) => {
  socket.on("message", (data, acknowledge) => acknowledge(data));
});
io.of("/closed").use((socket, next) => next(new Error("nobody comes in here")));
http.listen(0, "127.0.0.1", () => console.log(http.address().port));
process.stdin.resume();
process.stdin.on("end", () => process.exit(0));
