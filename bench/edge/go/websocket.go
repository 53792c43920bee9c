package main

import (
	"bufio"
	"crypto/sha1"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const (
	payload = 64 // Bytes of a message: a chat line, a hot-reload notice.
	key     = "dGhlIHNhbXBsZSBub25jZQ=="
	guid    = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
)

// echo is a WebSocket server that gives every message of 64 bytes back. Argument: address.
func echo(arguments []string) error {
	listener, err := net.Listen("tcp", arguments[0])
	if err != nil {
		return err
	}
	for {
		conn, err := listener.Accept()
		if err != nil {
			return err
		}
		go echoOne(conn)
	}
}

func echoOne(conn net.Conn) {
	defer conn.Close()
	reader := bufio.NewReader(conn)
	sent, err := readHead(reader)
	if err != nil {
		return
	}
	digest := sha1.Sum([]byte(sent["sec-websocket-key"] + guid))
	fmt.Fprintf(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
		"Sec-WebSocket-Accept: %s\r\n\r\n", base64.StdEncoding.EncodeToString(digest[:]))
	frame := make([]byte, 6+payload)
	for {
		if _, err := io.ReadFull(reader, frame); err != nil {
			return
		}
		mask := frame[2:6]
		answer := append(make([]byte, 0, 2+payload), 0x82, payload)
		for i, b := range frame[6:] {
			answer = append(answer, b^mask[i&3])
		}
		if _, err := conn.Write(answer); err != nil {
			return
		}
	}
}

// messages keeps connections busy with one message at a time each.
// Arguments: address, host, connections, seconds. Prints messages and seconds.
func messages(arguments []string) error {
	connections, _ := strconv.Atoi(arguments[2])
	seconds, _ := strconv.ParseFloat(arguments[3], 64)
	var count atomic.Int64
	var failures atomic.Int64
	var group sync.WaitGroup
	begun := time.Now()
	until := begun.Add(time.Duration(seconds * float64(time.Second)))
	for i := 0; i < connections; i++ {
		group.Add(1)
		go func() {
			defer group.Done()
			if err := converse(arguments[0], arguments[1], until, &count); err != nil {
				failures.Add(1)
				fmt.Fprintln(os.Stderr, err)
			}
		}()
	}
	group.Wait()
	took := time.Since(begun).Seconds()
	fmt.Printf("{\"messages\": %d, \"seconds\": %f, \"errors\": %d}\n", count.Load(), took, failures.Load())
	return nil
}

func converse(address, host string, until time.Time, count *atomic.Int64) error {
	conn, err := net.Dial("tcp", address)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(until.Add(5 * time.Second)); err != nil {
		return err
	}
	fmt.Fprintf(conn, "GET /ws HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %s\r\n\r\n", host, key)
	reader := bufio.NewReader(conn)
	if _, err := readHead(reader); err != nil {
		return err
	}
	frame := append([]byte{0x82, 0x80 | payload, 0, 0, 0, 0}, strings.Repeat("m", payload)...)
	answer := make([]byte, 2+payload)
	for time.Now().Before(until) {
		if _, err := conn.Write(frame); err != nil {
			return err
		}
		if _, err := io.ReadFull(reader, answer); err != nil {
			return err
		}
		count.Add(1)
	}
	return nil
}

// readHead reads a message head; names are in lower case.
func readHead(reader *bufio.Reader) (map[string]string, error) {
	fields := map[string]string{}
	for {
		line, err := reader.ReadString('\n')
		if err != nil {
			return nil, err
		}
		line = strings.TrimRight(line, "\r\n")
		if line == "" {
			return fields, nil
		}
		name, value, _ := strings.Cut(line, ":")
		fields[strings.ToLower(name)] = strings.TrimSpace(value)
	}
}
