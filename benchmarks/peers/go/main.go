// The chat room in Go: two goroutines for each client, one that reads and one that writes.
//
// What is said to a client is appended to its outbox; its writer takes all that is there with one
// Write, so that messages coalesce whenever they come faster than they are sent. An outbox of more
// than highWater bytes ends the client, as a slow reader. TCP_NODELAY, SO_REUSEADDR, a backlog of
// net.core.somaxconn and, since Go 1.19, the hard limit on descriptors are the runtime's defaults.
package main

import (
	"bufio"
	"bytes"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"sync"
	"time"
	"unicode/utf8"
)

const (
	highWater = 1 << 20
	keep      = 64 << 10 // a larger buffer is given back after a burst
)

type client struct {
	conn    net.Conn
	prefix  string
	wake    chan struct{} // holds a token while the outbox has something new
	written chan struct{} // closed when the writer has ended

	mu     sync.Mutex
	outbox []byte
	closed bool // nothing more will be said to it
}

type room struct {
	mu      sync.Mutex // held while a line is passed on: everyone hears the same order
	clients map[*client]struct{}
}

func (r *room) enter(c *client) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.clients[c] = struct{}{}
}

func (r *room) leave(c *client) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.clients, c)
}

// say passes a line of the sender on to all the others.
func (r *room) say(sender *client, line []byte) {
	line = bytes.TrimSuffix(line, []byte("\r"))
	if len(line) == 0 {
		return
	}
	if !utf8.Valid(line) {
		line = []byte(string([]rune(string(line)))) // a U+FFFD for each byte that is no UTF-8
	}
	message := make([]byte, 0, len(sender.prefix)+len(line)+1)
	message = append(message, sender.prefix...)
	message = append(message, line...)
	message = append(message, '\n')
	r.mu.Lock()
	defer r.mu.Unlock()
	for c := range r.clients {
		if c != sender {
			c.send(message)
		}
	}
}

// send never waits.
func (c *client) send(message []byte) {
	c.mu.Lock()
	c.outbox = append(c.outbox, message...)
	slow := len(c.outbox) > highWater
	c.mu.Unlock()
	if slow {
		c.conn.Close() // its reader and its writer find out
		return
	}
	c.notify()
}

func (c *client) notify() {
	select {
	case c.wake <- struct{}{}:
	default: // the writer has not yet taken what it was woken for
	}
}

// write sends what is in the outbox until the client has been closed or takes no more. In the latter
// case it is read that ends it: whole lines of it may still wait in the receive buffer.
func (c *client) write() {
	defer close(c.written)
	var spare []byte
	for range c.wake {
		c.mu.Lock()
		data, closed := c.outbox, c.closed
		c.outbox = spare[:0]
		c.mu.Unlock()
		if len(data) > 0 {
			if _, err := c.conn.Write(data); err != nil {
				return
			}
		}
		if closed {
			return
		}
		spare = data
		if cap(spare) > keep {
			spare = nil
		}
	}
}

// read is one client from beginning to end.
func (c *client) read(r *room) {
	reader := bufio.NewReader(c.conn)
	var line []byte
	var err error
	for {
		if line, err = reader.ReadBytes('\n'); err != nil {
			break
		}
		r.say(c, line[:len(line)-1])
	}
	r.leave(c)
	if err == io.EOF {
		// The end of the stream ends it as "\n" would, and a reset does not. But the kernel tells
		// a reset once: when it is Write that hears of it, it looks like an EOF here.
		r.say(c, line)
	}
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.notify()
	<-c.written // all that waited for it
	c.conn.Close()
}

func main() {
	port := flag.Int("port", 0, "port to listen on, at 127.0.0.1")
	flag.Parse()
	listener, err := net.Listen("tcp4", fmt.Sprintf("127.0.0.1:%d", *port))
	if err != nil {
		log.Fatal(err)
	}
	r := &room{clients: make(map[*client]struct{})}
	for {
		conn, err := listener.Accept()
		if err != nil {
			time.Sleep(200 * time.Millisecond) // too many open files: the backlog holds newcomers
			continue
		}
		address := conn.RemoteAddr().(*net.TCPAddr)
		c := &client{
			conn:    conn,
			prefix:  fmt.Sprintf("('%s', %d) dice: ", address.IP, address.Port),
			wake:    make(chan struct{}, 1),
			written: make(chan struct{}),
		}
		r.enter(c)
		go c.write()
		go c.read(r)
	}
}
