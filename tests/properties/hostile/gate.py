"""Whom a worker believes, in the same order as the real gate, without its signatures."""

from diplex_core.words import Claim, Seconds

from .words import Grant

STOP_REMEMBERED: Seconds = 60.0


class Gate:
    """The checks of one worker's life. Times are on the worker's own clock."""

    def __init__(self, name: str, boot: int) -> None:
        self._name = name
        self._boot = boot
        self._epochs: dict[str, int] = {}
        self._shown: dict[Claim, Seconds] = {}
        self._stopped: dict[Claim, Seconds] = {}

    def hello(self, router: str, epoch: int) -> None:
        self._epochs[router] = epoch

    def stopped(self, claim: Claim, now: Seconds) -> None:
        """A router took back a claim that is not held: its late start is to be refused."""
        self._stopped[claim] = now + STOP_REMEMBERED

    def show(self, grant: Grant, now: Seconds) -> str:
        """Why a grant is turned away; empty: it passes, and can never be shown again."""
        for remembered in (self._shown, self._stopped):
            for claim in [claim for claim, until in remembered.items() if until < now]:
                del remembered[claim]
        granted = grant.granted
        if granted.worker.name != self._name:
            return "WRONG_WORKER"
        if granted.worker.boot != self._boot:
            return "WRONG_BOOT"
        if self._epochs.get(grant.router, grant.epoch) != grant.epoch:
            return "OLD_EPOCH"
        if now > granted.start_by:
            return "GRANT_EXPIRED"
        if grant.claim in self._shown:
            return "GRANT_SHOWN"
        if grant.claim in self._stopped:
            return "TAKEN_BACK"
        self._shown[grant.claim] = granted.start_by
        return ""
