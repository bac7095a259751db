import pytest

from seqkit.errors import InputError


def test_it_is_a_value_error_so_that_library_users_need_not_know_it() -> None:
    with pytest.raises(ValueError, match="where: argument must rule, got value"):
        raise InputError("where: argument must rule, got value")
