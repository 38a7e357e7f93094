'use strict';

// The chat room on Node: net.Server, socket.write() for each delivery.
//
// With --cork the first write to a socket in a turn of the event loop corks it, and setImmediate(),
// which runs when the turn has read from everyone, uncorks all of them: one writev() for each
// client and turn. What the kernel does not take waits in the socket's own buffer, without bound.
// Node raises the limit on descriptors and sets SO_REUSEADDR by itself.

const net = require('net');

const port = Number(process.argv[process.argv.indexOf('--port') + 1]);
const cork = process.argv.includes('--cork');

const room = new Set();
let corked = [];

function uncork() {
  const sockets = corked;
  corked = [];
  for (const socket of sockets) socket.uncork();
}

function send(socket, message) {
  if (cork && socket.writableCorked === 0) {
    if (corked.length === 0) setImmediate(uncork);
    corked.push(socket);
    socket.cork();
  }
  socket.write(message);
}

function say(sender, prefix, line) {
  const text = line.endsWith('\r') ? line.slice(0, -1) : line;
  if (text === '') return;
  const message = Buffer.from(`${prefix}${text}\n`);
  for (const socket of room) {
    if (socket !== sender) send(socket, message);
  }
}

const server = net.createServer({ allowHalfOpen: true }, (socket) => {
  const prefix = `('${socket.remoteAddress}', ${socket.remotePort}) dice: `;
  let rest = '';
  socket.setNoDelay(true);
  room.add(socket);
  socket.setEncoding('utf8'); // keeps the bytes of a character together, invalid ones are U+FFFD
  socket.on('data', (data) => {
    const lines = (rest + data).split('\n');
    rest = lines.pop();
    for (const line of lines) say(socket, prefix, line);
  });
  socket.on('end', () => {
    room.delete(socket);
    say(socket, prefix, rest);
    socket.end(); // when all that waits for it is sent
  });
  socket.on('error', () => {}); // 'close' follows; without a listener the process would end
  socket.on('close', () => room.delete(socket));
});

server.listen({ port, host: '127.0.0.1', backlog: 1024 });
