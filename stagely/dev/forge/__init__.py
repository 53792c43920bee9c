"""The local forge: the part of GitHub that Stagely uses, on real git repositories on this machine."""
