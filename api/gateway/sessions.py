"""Which sessions this gateway holds: every socket, and the one open session of each VM."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from api.gateway.session import Phase, Session
from api.gateway.websocket import REPLACED
from stagely.db.queries.agents import EnrolledVm

Clock = Callable[[], float]


class Sessions:
    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.every: set[Session] = set()
        self.empty = asyncio.Event()
        self.empty.set()
        self._new: set[Session] = set()
        self._by_vm: dict[str, Session] = {}

    def add(self, session: Session) -> None:
        self.every.add(session)
        self._new.add(session)
        self.empty.clear()

    def open(self, session: Session, vm: EnrolledVm) -> None:
        """This session speaks for the VM from now on; an older one is closed: the newer socket is the living one."""
        older = self._by_vm.get(vm.vm_id)
        if older is not None and older is not session:
            older.close(REPLACED, "replaced", self.clock())
        session.open(vm, self.clock())
        self._by_vm[vm.vm_id] = session

    def remove(self, session: Session) -> None:
        """The socket is gone."""
        session.enter(Phase.CLOSED, self.clock())
        self.every.discard(session)
        self._new.discard(session)
        if not self.every:
            self.empty.set()
        if session.vm is not None and self._by_vm.get(session.vm.vm_id) is session:
            del self._by_vm[session.vm.vm_id]

    def of(self, vm_id: str) -> Session | None:
        """The open session of a VM, if this gateway has it."""
        found = self._by_vm.get(vm_id)
        return found if found is not None and found.phase is Phase.OPEN else None

    def newcomers(self) -> list[Session]:
        """Those that said no HELLO yet."""
        self._new = {one for one in self._new if one.phase is Phase.WAITING}
        return list(self._new)

    def unwell(self, heard_before: float) -> list[Session]:
        """Those that were closed, and those that were last heard before this moment. Looks at all."""
        return [one for one in self.every if one.phase is Phase.CLOSED or one.heard_at < heard_before]
