import math

import pytest

from seqkit.errors import InputError
from seqkit.training.schedule import Schedule


def test_warm_up_is_linear_for_every_schedule() -> None:
    for name in ("constant", "inverse_sqrt", "cosine", "plateau"):
        schedule = Schedule(name, peak=0.8, warmup=4, total=100)
        assert [schedule.rate(step) for step in (1, 2, 3, 4)] == pytest.approx([0.2, 0.4, 0.6, 0.8])


def test_inverse_sqrt_is_the_papers_formula() -> None:
    # Vaswani et al. 2017, section 5.3: d^-0.5 min(step^-0.5, step warmup^-1.5); the peak is d^-0.5 warmup^-0.5.
    width, warmup = 512, 4000
    schedule = Schedule("inverse_sqrt", peak=(width * warmup) ** -0.5, warmup=warmup, total=1)
    for step in (1, 100, 4000, 4001, 50_000):
        assert schedule.rate(step) == pytest.approx(width**-0.5 * min(step**-0.5, step * warmup**-1.5))


def test_cosine_ends_at_the_minimum_and_is_half_way_in_the_middle() -> None:
    schedule = Schedule("cosine", peak=1.0, warmup=10, total=110, minimum=0.2)
    assert schedule.rate(60) == pytest.approx(0.6)
    assert schedule.rate(110) == pytest.approx(0.2)
    assert schedule.rate(500) == pytest.approx(0.2)


def test_plateau_halves_after_patience_and_remembers_across_a_resume() -> None:
    schedule = Schedule("plateau", peak=1.0, warmup=0, total=1, patience=2)
    for value in (1.0, 0.9):
        schedule.observe(value)
    resumed = Schedule("plateau", peak=1.0, warmup=0, total=1, patience=2)
    resumed.load_state_dict(schedule.state_dict())
    assert resumed.rate(9) == 1.0
    resumed.observe(0.95)
    assert resumed.rate(9) == 0.5
    assert math.isclose(schedule.rate(9), 1.0)


def test_wrong_settings_are_refused() -> None:
    with pytest.raises(InputError, match="`schedule` must be one of"):
        Schedule("linear", peak=1.0, warmup=0, total=1)
    with pytest.raises(InputError, match="must be positive"):
        Schedule("constant", peak=0.0, warmup=0, total=1)
