"""Which prefix blocks are resident, and who uses them."""

from diplex_core.resident import Resident


def test_a_prefix_ends_at_its_first_miss() -> None:
    resident = Resident()
    resident.stored([1, 2, 4])
    assert resident.leading([1, 2, 3, 4]) == (1, 2)
    assert resident.leading([3, 1]) == ()


def test_a_list_of_all_that_is_resident_takes_the_place_of_what_was_known() -> None:
    resident = Resident()
    resident.stored([1, 2, 3])
    resident.use([3])
    resident.only([2, 4])
    assert (resident.leading([2, 4]), resident.leading([1]), resident.leading([3])) == ((2, 4), (), ())
    assert (resident.pinned, resident.cached) == (1, 2)


def test_a_block_that_left_under_its_user_is_gone_with_its_last_user() -> None:
    resident = Resident()
    resident.stored([3])
    resident.use([3])
    resident.use([3])
    resident.removed([3])
    resident.leave([3])
    assert (resident.pinned, len(resident)) == (1, 1)
    resident.leave([3])
    assert (resident.pinned, len(resident)) == (0, 0)


def test_a_block_that_came_back_under_its_user_can_be_hit_again() -> None:
    resident = Resident()
    resident.stored([3])
    resident.use([3])
    resident.removed([3])
    resident.stored([3])
    assert resident.leading([3]) == (3,)
    assert resident.newly_pinned([3]) == 0
    resident.leave([3])
    assert (resident.pinned, resident.cached) == (0, 1)
