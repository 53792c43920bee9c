package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
)

var errNoKey = errors.New("no such key")

// redisPool gives GET over connections that are kept open, as a Redis library does.
type redisPool struct {
	address string
	idle    chan *redisConn
}

type redisConn struct {
	net.Conn
	reader *bufio.Reader
}

func newRedisPool(address string, size int) *redisPool {
	return &redisPool{address, make(chan *redisConn, size)}
}

func (p *redisPool) get(key string) ([]byte, error) {
	conn, err := p.take()
	if err != nil {
		return nil, err
	}
	value, err := conn.get(key)
	if err != nil && !errors.Is(err, errNoKey) {
		conn.Close()
		return nil, err
	}
	select {
	case p.idle <- conn:
	default:
		conn.Close()
	}
	return value, err
}

func (p *redisPool) take() (*redisConn, error) {
	select {
	case conn := <-p.idle:
		return conn, nil
	default:
	}
	conn, err := net.Dial("tcp", p.address)
	if err != nil {
		return nil, err
	}
	return &redisConn{conn, bufio.NewReader(conn)}, nil
}

func (c *redisConn) get(key string) ([]byte, error) {
	command := make([]byte, 0, 64+len(key))
	command = append(command, "*2\r\n$3\r\nGET\r\n$"...)
	command = strconv.AppendInt(command, int64(len(key)), 10)
	command = append(command, "\r\n"...)
	command = append(command, key...)
	command = append(command, "\r\n"...)
	if _, err := c.Write(command); err != nil {
		return nil, err
	}
	line, err := c.reader.ReadSlice('\n')
	if err != nil {
		return nil, err
	}
	if line[0] != '$' {
		return nil, fmt.Errorf("redis answered %q", line)
	}
	size, err := strconv.Atoi(string(line[1 : len(line)-2]))
	if err != nil {
		return nil, err
	}
	if size < 0 {
		return nil, errNoKey
	}
	value := make([]byte, size+2)
	if _, err := io.ReadFull(c.reader, value); err != nil {
		return nil, err
	}
	return value[:size], nil
}
