'use strict';

// The chat room on Node with ws: WebSocket.send() for each delivery.
//
// A message is a text frame, and so is what the others get of it: ('127.0.0.1', 52344) dice: hola.
// With --cork the first send to a client in a turn of the event loop corks its socket, and
// setImmediate() uncorks all of them: one writev() for each client and turn. What the kernel does
// not take waits in the socket's own buffer, without bound.

const { WebSocketServer } = require('ws');

const port = Number(process.argv[process.argv.indexOf('--port') + 1]);
const cork = process.argv.includes('--cork');

const room = new Map(); // of each WebSocket its socket
let corked = [];

function uncork() {
  const sockets = corked;
  corked = [];
  for (const socket of sockets) socket.uncork();
}

function send(client, socket, message) {
  if (cork && socket.writableCorked === 0) {
    if (corked.length === 0) setImmediate(uncork);
    corked.push(socket);
    socket.cork();
  }
  client.send(message, { binary: false });
}

const server = new WebSocketServer({ port, host: '127.0.0.1', backlog: 1024 });

server.on('connection', (client, request) => {
  const { socket } = request; // ws sets TCP_NODELAY
  const prefix = `('${socket.remoteAddress}', ${socket.remotePort}) dice: `;
  room.set(client, socket);
  client.on('message', (text) => {
    const message = Buffer.from(prefix + text);
    for (const [other, its] of room) {
      if (other !== client) send(other, its, message);
    }
  });
  client.on('error', () => {}); // 'close' follows; without a listener the process would end
  client.on('close', () => room.delete(client));
});
