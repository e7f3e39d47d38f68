"""The grammar of the quadrotor's conditions: what each text means, and what is refused with the words to fix it."""

import pytest

from robots.quadrotor_condition import KINDS, NONE, Condition, ConditionError, liftable, parse
from robots.vehicle import load

VEHICLE = load("1kg")


@pytest.mark.parametrize(
    "text, wanted",
    [
        ("none", Condition()),
        ("payload:0.4:1.0", Condition(payload=(0.4, 1.0))),
        ("wind:3:0", Condition(wind=(3.0, 0.0))),
        ("wind:2:90", Condition(wind=(pytest.approx(0.0), 2.0))),
        ("gust:1.5", Condition(gust=1.5)),
        ("rotor:2:0.8", Condition(gain=(1.0, 1.0, 0.8, 1.0))),
        ("inertia:1.3", Condition(inertia=1.3)),
        ("payload:0.4:1.0+rotor:0:0.9+gust:1", Condition((0.4, 1.0), gust=1.0, gain=(0.9, 1.0, 1.0, 1.0))),
        ("payload:0.4:1.0+payload:0.1:0.5", Condition(payload=(0.1, 0.5))),
        ("gust:1+none", NONE),
    ],
)
def test_what_a_text_means(text, wanted):
    assert parse(text, VEHICLE).stages == ((0, wanted),)


def test_attach_and_drop():
    schedule = parse("gust:1+payload:0.4:1.0@120+none@200", VEHICLE)
    attached = Condition(payload=(0.4, 1.0), gust=1.0)
    assert schedule.stages == ((0, Condition(gust=1.0)), (120, attached), (200, NONE))
    assert schedule.at(119) == Condition(gust=1.0) and schedule.at(199) == attached
    assert schedule.onsets == (120, 200)


@pytest.mark.parametrize(
    "text, entry, why",
    [
        ("", "", "unknown condition"),
        ("healthy", "healthy", "unknown condition"),
        ("payload", "payload", "takes 2 argument(s), got 0"),
        ("payload:0.4", "payload:0.4", "takes 2"),
        ("payload:0.4:0", "payload:0.4:0", "0 is outside 0.1 to 2"),
        ("payload:0.4:-1", "payload:0.4:-1", "-1 is outside"),
        ("payload:0:1", "payload:0:1", "0 is outside 0.01 to 1"),
        ("payload:heavy:1", "payload:heavy:1", "'heavy' is not a number"),
        ("payload:nan:1", "payload:nan:1", "nan is outside"),
        ("payload:0.4:1@soon", "payload:0.4:1@soon", "unknown condition"),
        ("payload:0.97:1@20", "payload:0.97:1", "0.97 kg is above the lift margin of vehicle '1kg', 0.957 kg"),
        ("wind:3", "wind:3", "takes 2"),
        ("wind:30:0", "wind:30:0", "30 is outside 0 to 20"),
        ("gust:-1", "gust:-1", "-1 is outside"),
        ("gust:1:2", "gust:1:2", "takes 1"),
        ("rotor:4:0.8", "rotor:4:0.8", "'4' is not one of 0 to 3"),
        ("rotor:1:0.2", "rotor:1:0.2", "0.2 is outside 0.5 to 1"),
        ("inertia:0", "inertia:0", "0 is outside"),
        ("none:1", "none:1", "takes 0"),
        ("gust:1+wind:a:0", "wind:a:0", "'a' is not a number"),
    ],
)
def test_a_bad_entry_is_named_with_what_would_be_valid(text, entry, why):
    with pytest.raises(ConditionError) as caught:
        parse(text, VEHICLE)
    message, kind = str(caught.value), entry.split(":")[0]
    assert repr(entry) in message and repr(text) in message and why in message
    assert (KINDS[kind] if kind in KINDS else ", ".join(KINDS.values())) in message


def test_the_published_payloads_are_liftable():
    assert all(liftable(load(name)) > 0.5 for name in ("1kg", "80g"))
