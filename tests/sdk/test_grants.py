"""Only a holder of the fleet's key can make a grant or a hello that is believed."""

import pytest

from diplex.v1 import generation_pb2 as pb
from diplex.v1 import worker_pb2
from diplex.wire.grants import Keys
from diplex.wire.status import Problem

KEYS = Keys.of("k1:one")
GRANT = pb.Grant(claim=pb.Claim(lease_id=7, attempt=1), request_id="r", worker="w1", blocks=3, max_tokens=9)


def refused(keys: Keys, signed: pb.SignedGrant) -> str:
    with pytest.raises(Problem) as raised:
        keys.verify(signed)
    assert raised.value.code.name == "UNAUTHENTICATED"
    return raised.value.reason


def test_what_was_signed_is_believed_and_read_back_whole():
    assert KEYS.verify(KEYS.sign(GRANT)) == GRANT


def test_a_grant_with_more_blocks_than_were_signed_is_refused():
    signed = KEYS.sign(GRANT)
    more = pb.Grant.FromString(signed.grant)
    more.blocks += 1
    signed.grant = more.SerializeToString()
    assert refused(KEYS, signed) == "BAD_GRANT"


@pytest.mark.parametrize("place", [0, 10, -1])
def test_a_changed_byte_is_refused(place: int):
    signed = KEYS.sign(GRANT)
    data = bytearray(signed.grant)
    data[place] ^= 1
    signed.grant = bytes(data)
    assert refused(KEYS, signed) == "BAD_GRANT"


@pytest.mark.parametrize("mac", [b"", b"\0" * 32, b"short"])
def test_a_wrong_signature_is_refused(mac: bytes):
    signed = KEYS.sign(GRANT)
    signed.mac = mac
    assert refused(KEYS, signed) == "BAD_GRANT"


def test_a_signature_cut_short_is_refused():
    signed = KEYS.sign(GRANT)
    signed.mac = signed.mac[:-1]
    assert refused(KEYS, signed) == "BAD_GRANT"


def test_another_fleets_key_of_the_same_name_is_refused():
    assert refused(KEYS, Keys.of("k1:other").sign(GRANT)) == "BAD_GRANT"


def test_a_key_that_nobody_knows_is_refused_by_name():
    with pytest.raises(Problem, match="'k9'"):
        KEYS.verify(Keys.of("k9:one").sign(GRANT))


def test_an_unsigned_grant_is_refused():
    assert refused(KEYS, pb.SignedGrant(grant=GRANT.SerializeToString())) == "BAD_GRANT"


def test_keys_rotate_without_a_pause():
    old, both, new = Keys.of("a:old"), Keys.of("b:new,a:old"), Keys.of("b:new")
    assert both.verify(old.sign(GRANT)) == GRANT
    assert both.sign(GRANT).key_id == "b"
    assert new.verify(both.sign(GRANT)) == GRANT
    assert refused(new, old.sign(GRANT)) == "BAD_GRANT"


def test_a_key_without_a_name_is_the_same_in_every_process():
    assert Keys.of("secret").verify(Keys.of("secret").sign(GRANT)) == GRANT
    assert "secret" not in Keys.of("secret").sign(GRANT).key_id


def test_fresh_keys_differ():
    assert refused(Keys.fresh(), Keys.fresh().sign(GRANT)) == "BAD_GRANT"


@pytest.mark.parametrize("text", ["", "a:", "a:one,", "a:one,a:two"])
def test_keys_that_cannot_be_are_told_apart_at_once(text: str):
    with pytest.raises(ValueError, match="Mend"):
        Keys.of(text)


def test_a_secret_is_in_no_repr():
    assert "one" not in repr(KEYS)


def test_a_routers_hello_is_believed():
    KEYS.verify_hello(KEYS.hello("r1", 2**32 - 1, "w1"))


@pytest.mark.parametrize(
    "change",
    [{"router": "r2"}, {"worker": "w2"}, {"epoch": 8}, {"mac": b"\0" * 32}, {"key_id": "k2"}],
    ids=lambda change: next(iter(change)),
)
def test_a_hello_that_says_otherwise_than_was_signed_is_refused(change: dict[str, object]):
    hello = KEYS.hello("r1", 7, "w1")
    hello.MergeFrom(worker_pb2.Hello(**change))  # type: ignore[arg-type]
    with pytest.raises(Problem) as raised:
        KEYS.verify_hello(hello)
    assert raised.value.reason == "BAD_HELLO"


def test_a_letter_moved_between_the_names_makes_another_hello():
    hello = KEYS.hello("ab", 7, "c")
    hello.router, hello.worker = "a", "bc"
    with pytest.raises(Problem):
        KEYS.verify_hello(hello)


def test_a_hellos_signature_signs_no_grant():
    hello = KEYS.hello("r1", 7, "w1")
    spoken = b"hello" + b"\0\0\0\2r1" + b"\0\0\0\2w1" + b"\0\0\0\7"
    forged = pb.SignedGrant(grant=spoken, mac=hello.mac, key_id=hello.key_id)
    assert refused(KEYS, forged) == "BAD_GRANT"
