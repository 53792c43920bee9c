"""The gateway: one process that holds agents' sockets and no decision.

websocket.py cuts bytes into texts, session.py keeps one agent's numbers, server.py hands each message to the loop that
acts on it in batches: hellos, inbox, forward, outbox, presence. State that must survive is in Postgres.
"""
