"""Many agents on one gateway: the real one beside a bare `websockets` server, each on a core of its own.

`__main__` runs scenarios and prints; `density`, `logs`, `herd` and `flood` are the scenarios; `stage` has the engines,
`targets` the two servers, `bare` the peer's own program, `residents` the rows and keys of the agents that `agents`
simulates with the bytes of `frames`; `hostile` are agents that mean harm, in a process of their own.
"""
