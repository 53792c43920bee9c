// The parts of `python -m bench.edge` that must be quick: a peer, a WebSocket echo, and two loads.
package main

import (
	"fmt"
	"os"
)

func main() {
	commands := map[string]func([]string) error{
		"proxy":    proxy,
		"echo":     echo,
		"messages": messages,
		"rate":     rate,
	}
	if len(os.Args) < 2 || commands[os.Args[1]] == nil {
		fmt.Fprintln(os.Stderr, "usage: bench-edge proxy|echo|messages|rate ...")
		os.Exit(2)
	}
	if err := commands[os.Args[1]](os.Args[2:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
