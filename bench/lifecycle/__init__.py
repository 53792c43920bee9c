"""Many pull requests at once: whole lives of environments on a cloud in memory, beside a program that only waits.

`__main__` runs rounds and prints; `round` is one of them; `servers` are the real engines it stands on; `worker` is the
child process that is measured, with `stagely_worker` or `bare` inside; `targets` plays GitHub and the agents.
"""
