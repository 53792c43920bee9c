"""`stagely demo`: a script over `stagely dev` and the commands, from a pull request's opening to its last trace."""

from stagely.cli.demo.script import DemoOptions, run

__all__ = ["DemoOptions", "run"]
