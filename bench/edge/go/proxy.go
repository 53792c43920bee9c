package main

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"
)

type route struct {
	IP      string `json:"ip"`
	Port    int    `json:"port"`
	Status  string `json:"status"`
	Project string `json:"project"`
	Team    string `json:"team"`
	PR      int    `json:"pr"`
}

type routeKey struct{}

// buffers lets ReverseProxy reuse what it copies bodies with.
type buffers struct{ sync.Pool }

func (b *buffers) Get() []byte      { return *b.Pool.Get().(*[]byte) }
func (b *buffers) Put(bytes []byte) { b.Pool.Put(&bytes) }

// proxy is httputil.ReverseProxy with one Redis lookup per request.
// Arguments: address, TLS address, certificate, key, Redis address.
func proxy(arguments []string) error {
	address, tlsAddress, certificate, key, redis := arguments[0], arguments[1], arguments[2], arguments[3], arguments[4]
	routes := newRedisPool(redis, 256)
	reverse := &httputil.ReverseProxy{
		Director: direct,
		Transport: &http.Transport{
			DialContext:         (&net.Dialer{Timeout: 3 * time.Second}).DialContext,
			MaxIdleConnsPerHost: 1024, // The default of 2 makes it five times slower.
			IdleConnTimeout:     90 * time.Second,
			DisableCompression:  true,
		},
		BufferPool: &buffers{sync.Pool{New: func() any { b := make([]byte, 32*1024); return &b }}},
	}
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		label, _, _ := strings.Cut(r.Host, ".")
		found, err := lookup(routes, label)
		if err != nil {
			http.Error(w, err.Error(), http.StatusNotFound)
			return
		}
		reverse.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), routeKey{}, found)))
	})
	server := &http.Server{Handler: handler, ReadHeaderTimeout: 10 * time.Second}
	failed := make(chan error, 2)
	for _, listen := range []struct {
		address string
		serve   func(net.Listener) error
	}{
		{address, server.Serve},
		{tlsAddress, func(l net.Listener) error { return server.ServeTLS(l, certificate, key) }},
	} {
		listener, err := net.Listen("tcp", listen.address)
		if err != nil {
			return err
		}
		go func(serve func(net.Listener) error) { failed <- serve(listener) }(listen.serve)
	}
	return <-failed
}

func lookup(routes *redisPool, label string) (*route, error) {
	record, err := routes.get("route:" + label)
	if err != nil {
		return nil, err
	}
	found := &route{}
	if err := json.Unmarshal(record, found); err != nil {
		return nil, err
	}
	if found.Status != "ready" {
		return nil, errors.New("preview is " + found.Status)
	}
	return found, nil
}

func direct(r *http.Request) {
	found := r.Context().Value(routeKey{}).(*route)
	r.URL = &url.URL{
		Scheme: "http", Host: net.JoinHostPort(found.IP, strconv.Itoa(found.Port)),
		Path: r.URL.Path, RawPath: r.URL.RawPath, RawQuery: r.URL.RawQuery,
	}
	r.Header.Set("X-Stagely-PR", strconv.Itoa(found.PR))
	r.Header.Set("X-Stagely-Project", found.Project)
	r.Header.Set("X-Stagely-Team", found.Team)
}
