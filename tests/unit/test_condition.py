"""The grammar of conditions: what each text means, and that what means nothing is refused with the words to fix it."""

from itertools import pairwise

import pytest

from robots.condition import HEALTHY, KINDS, N_LEGS, Condition, ConditionError, motors_of_leg, parse

ONES = (1.0,) * 8


def gain(**changes: float) -> tuple[float, ...]:
    """gain(m3=0) -> eight ones with a zero at motor 3."""
    return tuple(changes.get(f"m{i}", 1.0) for i in range(8))


@pytest.mark.parametrize(
    "text, wanted",
    [
        ("healthy", Condition()),
        ("leg:3", Condition(gain=gain(m0=0.0, m1=0.0))),
        ("leg:0", Condition(gain=gain(m2=0.0, m3=0.0))),
        ("leg-short:3", Condition(gain=gain(m0=0.0, m1=0.0), short=frozenset({3}))),
        ("reverse:0", Condition(gain=gain(m0=-1.0))),
        ("weak:0.3:1", Condition(gain=gain(m4=0.3, m5=0.3))),
        ("weak:0.3", Condition(gain=(0.3,) * 8)),
        ("lock:5", Condition(locked=frozenset({5}))),
        ("mass:1.5", Condition(mass=1.5)),
        ("friction:0.5", Condition(friction=0.5)),
        ("slope:5", Condition(slope=5.0)),
        ("slope:-5", Condition(slope=-5.0)),
        # Entries add up; a later value of the same quantity replaces the earlier, gains multiply.
        ("leg:0+leg:3", Condition(gain=gain(m0=0.0, m1=0.0, m2=0.0, m3=0.0))),
        ("lock:5+lock:2+mass:2", Condition(locked=frozenset({2, 5}), mass=2.0)),
        ("weak:0.5+reverse:7", Condition(gain=(0.5,) * 7 + (-0.5,))),
        ("weak:0.5+weak:0.5", Condition(gain=(0.25,) * 8)),
        ("reverse:1+reverse:1", Condition()),
        ("mass:2+mass:3", Condition(mass=3.0)),
        ("leg:3+healthy", Condition()),
        ("healthy+leg:3", Condition(gain=gain(m0=0.0, m1=0.0))),
        (" leg:3 + mass:2 ", Condition(gain=gain(m0=0.0, m1=0.0), mass=2.0)),
    ],
)
def test_what_a_text_means(text, wanted):
    schedule = parse(text)
    assert schedule.stages == ((0, wanted),)
    assert schedule.onsets == ()
    assert schedule.at(0) == schedule.at(10_000) == wanted
    assert schedule.text == text


@pytest.mark.parametrize(
    "text, stages",
    [
        ("leg:3@100+leg:0@300", [(0, "healthy"), (100, "leg:3"), (300, "leg:3+leg:0")]),
        ("leg:0@300+leg:3@100", [(0, "healthy"), (100, "leg:3"), (300, "leg:3+leg:0")]),
        ("leg:3+healthy@200", [(0, "leg:3"), (200, "healthy")]),
        ("healthy@200", [(0, "healthy"), (200, "healthy")]),
        ("leg:3@0", [(0, "leg:3")]),
        ("leg:3@100+mass:2@100", [(0, "healthy"), (100, "leg:3+mass:2")]),
        ("reverse:2@10+healthy@20+lock:1@20", [(0, "healthy"), (10, "reverse:2"), (20, "lock:1")]),
        ("weak:0.3:1@50+slope:5", [(0, "slope:5"), (50, "slope:5+weak:0.3:1")]),
    ],
)
def test_onsets(text, stages):
    schedule = parse(text)
    wanted = [(onset, parse(stage).at(0)) for onset, stage in stages]
    assert list(schedule.stages) == wanted
    assert schedule.onsets == tuple(onset for onset, _ in wanted[1:])
    for onset, condition in wanted:
        assert schedule.at(onset) == condition
    for (_, before), (onset, _) in pairwise(wanted):
        assert schedule.at(onset - 1) == before


# text: the entry at fault
BAD = {
    "": "",
    "broken": "broken",
    "LEG:3": "LEG:3",
    "legs:3": "legs:3",
    "leg:3,leg:1": "leg:3,leg:1",
    "leg 3": "leg 3",
    "leg:3@-1": "leg:3@-1",
    "leg:3@": "leg:3@",
    "leg:3@1.5": "leg:3@1.5",
    "leg:3@soon": "leg:3@soon",
    "leg:3@1@2": "leg:3@1@2",
    "leg::3": "leg::3",
    "mass:2++leg:3": "",
    "leg:3+": "",
    "mass:2+brkoen:1@5": "brkoen:1@5",
    "leg": "leg",
    "leg:4": "leg:4",
    "leg:-1": "leg:-1",
    "leg:x": "leg:x",
    "leg:1.0": "leg:1.0",
    "leg:1:2": "leg:1:2",
    "leg-short:4@100": "leg-short:4",
    "reverse:8": "reverse:8",
    "lock:8": "lock:8",
    "weak": "weak",
    "weak:1.5": "weak:1.5",
    "weak:-0.1": "weak:-0.1",
    "weak:nan": "weak:nan",
    "weak:0.5:4": "weak:0.5:4",
    "weak:0.5:1:2": "weak:0.5:1:2",
    "mass:0": "mass:0",
    "mass:heavy": "mass:heavy",
    "mass:inf": "mass:inf",
    "friction:0": "friction:0",
    "friction:11": "friction:11",
    "slope:45": "slope:45",
    "healthy:1": "healthy:1",
    "leg:3@100+mass:99@200": "mass:99",
}


@pytest.mark.parametrize("text", BAD)
def test_a_bad_entry_is_named_with_what_would_be_valid(text):
    with pytest.raises(ConditionError) as caught:
        parse(text)
    message, entry = str(caught.value), BAD[text]
    assert repr(entry) in message and repr(text) in message
    kind = entry.split(":")[0]
    # A known kind's own usage, else that of every kind.
    for usage in [KINDS[kind]] if f"valid: {KINDS.get(kind)}" in message else KINDS.values():
        assert usage in message


def test_a_condition_error_is_a_value_error():
    with pytest.raises(ValueError, match="valid"):
        parse("nonsense")


def test_every_motor_belongs_to_one_leg():
    assert sorted(motor for leg in range(N_LEGS) for motor in motors_of_leg(leg)) == list(range(8))


def test_conditions_are_values():
    # The physics caches a model for each: equal conditions must hash alike.
    assert len({parse("leg:3+mass:2").at(0), parse("mass:2+leg:3").at(5), HEALTHY, Condition(ONES)}) == 2
