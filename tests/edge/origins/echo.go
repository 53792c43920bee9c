// Go's net/http as an origin: notes every request and answers with it.
package main

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"sync"
)

func main() {
	record, err := os.OpenFile(os.Args[2], os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		panic(err)
	}
	var one sync.Mutex
	echo := func(answer http.ResponseWriter, request *http.Request) {
		length, err := io.Copy(io.Discard, request.Body)
		if err != nil {
			return
		}
		seen := fmt.Sprintf("%s %s HTTP/1.1\t%d\n", request.Method, request.RequestURI, length)
		one.Lock()
		_, _ = record.WriteString(seen)
		one.Unlock()
		answer.Header().Set("X-Body-Length", fmt.Sprint(length))
		_, _ = io.WriteString(answer, seen)
	}
	panic(http.ListenAndServe("127.0.0.1:"+os.Args[1], http.HandlerFunc(echo)))
}
