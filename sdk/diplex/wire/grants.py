"""Grants and hellos are signed: HMAC-SHA256 with a key that a fleet's routers and workers share.

A worker believes a grant because only a holder of the key can have made it, and a router's hello for the
same reason. Keys rotate without a pause: every listed key verifies, the first one signs.
"""

import hashlib
import hmac
import secrets
from collections.abc import Mapping
from typing import Final

import grpc
from google.protobuf.message import DecodeError

from diplex.v1 import generation_pb2 as pb
from diplex.v1 import worker_pb2
from diplex.wire.status import Problem

# A signature over these bytes can be no grant's: read as a Grant, "hello" is malformed.
_HELLO: Final = b"hello"


class Keys:
    """The keys of one fleet: the first signs, all verify. Never shown in a repr.

    Args:
        secrets_by_id: at least one, in the order in which they were listed.
    Raises:
        ValueError: none is given, or one is empty.
    """

    def __init__(self, secrets_by_id: Mapping[str, bytes]) -> None:
        if not secrets_by_id or not all(secrets_by_id.values()):
            raise ValueError("a key for grants is empty. Mend: a secret, or id:secret[,id:secret…]")
        # HMAC digests its key once here; a copy of that state is what each message costs.
        self._prepared = {
            key_id: hmac.new(secret, digestmod=hashlib.sha256) for key_id, secret in secrets_by_id.items()
        }
        self._signing_id = next(iter(secrets_by_id))

    @property
    def signs(self) -> str:
        """The id of the key that signs."""
        return self._signing_id

    @property
    def ids(self) -> tuple[str, ...]:
        """Of all that verify."""
        return tuple(self._prepared)

    def become(self, other: "Keys") -> None:
        """From now on sign and verify with another's keys. Whoever holds these holds the new ones."""
        self._prepared, self._signing_id = other._prepared, other._signing_id

    @classmethod
    def of(cls, text: str) -> "Keys":
        """Read `secret` or `id:secret[,id:secret…]`; a key without an id is named after its secret's hash.

        Raises:
            ValueError: a secret is empty, or two keys have the same id.
        """
        found: dict[str, bytes] = {}
        for entry in text.split(","):
            key_id, colon, secret = entry.strip().rpartition(":")
            if not colon:
                key_id = hashlib.sha256(b"key id:" + secret.encode()).hexdigest()[:8]
            if key_id in found:
                raise ValueError(f"two keys for grants have the id {key_id!r}. Mend: give each its own")
            found[key_id] = secret.encode()
        return cls(found)

    @classmethod
    def fresh(cls) -> "Keys":
        """A new random key, for a fleet of processes that one parent starts."""
        return cls.of(secrets.token_urlsafe(32))

    def sign(self, grant: pb.Grant) -> pb.SignedGrant:
        """The grant as it travels: its bytes, and the signature over exactly these bytes."""
        data = grant.SerializeToString()
        return pb.SignedGrant(grant=data, mac=self._mac(self._signing_id, data), key_id=self._signing_id)

    def verify(self, signed: pb.SignedGrant) -> pb.Grant:
        """The grant, if it was signed with one of these keys.

        Raises:
            Problem: UNAUTHENTICATED, reason BAD_GRANT.
        """
        if not self._genuine(signed.key_id, signed.grant, signed.mac):
            raise _refusal("the grant", signed.key_id, "BAD_GRANT")
        try:
            return pb.Grant.FromString(signed.grant)
        except DecodeError as error:
            raise _refusal("the grant", signed.key_id, "BAD_GRANT") from error

    def hello(self, router: str, epoch: int, worker: str) -> worker_pb2.Hello:
        """A router's signed first word on a `Worker.Link`."""
        mac = self._mac(self._signing_id, _hello_bytes(router, epoch, worker))
        return worker_pb2.Hello(router=router, epoch=epoch, worker=worker, mac=mac, key_id=self._signing_id)

    def verify_hello(self, hello: worker_pb2.Hello) -> None:
        """Return if the hello was signed with one of these keys.

        Raises:
            Problem: UNAUTHENTICATED, reason BAD_HELLO.
        """
        data = _hello_bytes(hello.router, hello.epoch, hello.worker)
        if not self._genuine(hello.key_id, data, hello.mac):
            raise _refusal(f"the hello of router {hello.router!r}", hello.key_id, "BAD_HELLO")

    def _mac(self, key_id: str, data: bytes) -> bytes:
        mac = self._prepared[key_id].copy()
        mac.update(data)
        return mac.digest()

    def _genuine(self, key_id: str, data: bytes, mac: bytes) -> bool:
        return key_id in self._prepared and hmac.compare_digest(self._mac(key_id, data), mac)


def _hello_bytes(router: str, epoch: int, worker: str) -> bytes:
    """Lengths go before names, so that no two pairs of names read the same."""
    names = b"".join(len(name).to_bytes(4) + name for name in (router.encode(), worker.encode()))
    return _HELLO + names + epoch.to_bytes(4)


def _refusal(what: str, key_id: str, reason: str) -> Problem:
    return Problem(
        grpc.StatusCode.UNAUTHENTICATED,
        f"{what} is not signed with a key of this worker (key id {key_id!r}). "
        "Mend: give router and workers the same key (grants.key_env)",
        reason,
    )
