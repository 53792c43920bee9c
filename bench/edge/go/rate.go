package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"sort"
	"strconv"
	"sync"
	"time"
)

// rate asks at a fixed rate, whatever the answers do (open loop), and prints how long they took.
// Arguments: address, host, requests per second, connections, seconds.
func rate(arguments []string) error {
	perSecond, _ := strconv.ParseFloat(arguments[2], 64)
	connections, _ := strconv.Atoi(arguments[3])
	seconds, _ := strconv.ParseFloat(arguments[4], 64)
	request := []byte("GET / HTTP/1.1\r\nHost: " + arguments[1] + "\r\n\r\n")
	gap := time.Duration(float64(time.Second) * float64(connections) / perSecond)
	begin := time.Now().Add(100 * time.Millisecond)
	var lock sync.Mutex
	var all []time.Duration
	errors := 0
	var group sync.WaitGroup
	for i := 0; i < connections; i++ {
		group.Add(1)
		go func(first time.Time) {
			defer group.Done()
			took, err := askInTime(arguments[0], request, first, gap, begin.Add(time.Duration(seconds*float64(time.Second))))
			lock.Lock()
			defer lock.Unlock()
			all = append(all, took...)
			if err != nil {
				errors++
			}
		}(begin.Add(gap * time.Duration(i) / time.Duration(connections)))
	}
	group.Wait()
	sort.Slice(all, func(i, j int) bool { return all[i] < all[j] })
	fmt.Printf("{\"requests\": %d, \"p50_us\": %d, \"p99_us\": %d, \"errors\": %d}\n",
		len(all), percentile(all, 50), percentile(all, 99), errors)
	return nil
}

func percentile(sorted []time.Duration, percent int) int64 {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[(len(sorted)-1)*percent/100].Microseconds()
}

func askInTime(address string, request []byte, at time.Time, gap time.Duration, until time.Time) ([]time.Duration, error) {
	conn, err := net.Dial("tcp", address)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	reader := bufio.NewReader(conn)
	var took []time.Duration
	for ; at.Before(until); at = at.Add(gap) {
		begun := at
		if wait := time.Until(at); wait > 0 {
			time.Sleep(wait)
			begun = time.Now() // A timer that is late is not the proxy's fault; an answer before that is.
		}
		if _, err := conn.Write(request); err != nil {
			return took, err
		}
		if err := readAnswer(reader); err != nil {
			return took, err
		}
		took = append(took, time.Since(begun))
	}
	return took, nil
}

func readAnswer(reader *bufio.Reader) error {
	fields, err := readHead(reader)
	if err != nil {
		return err
	}
	length, err := strconv.ParseInt(fields["content-length"], 10, 64)
	if err != nil {
		return err
	}
	_, err = io.CopyN(io.Discard, reader, length)
	return err
}
