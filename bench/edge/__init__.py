"""What one core of the edge forwards, beside other proxies on the same core in the same run.

`__main__` runs scenarios and prints. `scenarios`, `idle` and `quota` are what is measured; `stage` has the origin and
the routes, `peers` and `configs` the other proxies (the one in Go is in `go`, with two loads), `heads` and `load` what
is sent.
"""
