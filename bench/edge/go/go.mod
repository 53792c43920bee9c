module stagely.dev/bench/edge

go 1.19
