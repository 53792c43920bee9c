"""Small words for messages."""

from __future__ import annotations


def count(number: int, noun: str) -> str:
    """`1 VM`, `2 VMs`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
