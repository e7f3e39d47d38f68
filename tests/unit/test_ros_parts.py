"""What the ROS 2 nodes are made of, without ROS: conversions, parameters, and the loop of events."""

import itertools
import math
from types import SimpleNamespace as Bare

import numpy as np
import pytest

from controller.config import ControllerConfig, PlannerConfig, UsageError
from controller.controller import Diagnostics
from controller.guard import BLIND, HOLD, OK, RELAX
from controller.ros import convert
from controller.ros.brains import JOINTS, MOTORS, AntBrain, ant
from controller.ros.controller_config import ControlConfig, check
from controller.ros.loop import LATE, MISS, OPERATOR, PLANNING, STATE, STEP, Loop
from controller.ros.params import flatten, update
from controller.ros.replay import redo
from robots.ant import Ant, load
from robots.condition import HEALTHY

MS = 1_000_000
DT = 50 * MS


def state_messages(seed: int = 0, order: list[int] | None = None) -> tuple[dict, np.ndarray]:
    """An ant's state and its messages, by the same conversions as the robot node's."""
    robot = Ant(threads=1)
    s = robot.reset([HEALTHY], [seed])[0]
    qpos, _ = robot.physics.split(robot.raw[0])
    order = list(range(8)) if order is None else order
    joint = Bare(name=[], position=[], velocity=[])
    convert.fill_joints(joint, [JOINTS[i] for i in order], qpos[7:][order], s[23:][order])
    xyz = lambda: Bare(x=0.0, y=0.0, z=0.0)  # noqa: E731
    odom = Bare(
        header=Bare(frame_id=""), child_frame_id="", pose=Bare(pose=Bare(position=xyz(), orientation=Bare(w=0, x=0, y=0, z=0))),
        twist=Bare(twist=Bare(linear=xyz(), angular=xyz())),
    )  # fmt: skip
    linear, angular = Ant.space.velocity
    convert.fill_pose(odom, convert.Pose(qpos[:3], qpos[3:7], s[linear], s[angular]))
    return {"joint_states": joint, "odom": odom}, s


@pytest.fixture(scope="module")
def brain() -> AntBrain:
    return ant(
        ControlConfig(controller=ControllerConfig(planner=PlannerConfig(samples=16, horizon=6, iterations=1))), None
    )


def test_the_names_are_those_of_the_model():
    model = load()
    assert tuple(model.joint(i).name for i in range(1, model.njnt)) == JOINTS
    assert tuple(model.joint(model.actuator(i).trnid[0]).name for i in range(model.nu)) == MOTORS


def test_a_state_survives_its_messages_to_the_bit_in_any_order_of_joints(brain):
    for seed in range(5):
        order = np.random.default_rng(seed).permutation(8).tolist()
        messages, s = state_messages(seed, order)
        assert np.array_equal(brain.decode(messages), s)


@pytest.mark.parametrize("spoil", ["missing", "twice", "nan", "huge", "short", "no rotation"])
def test_a_message_that_cannot_be_used_says_why(brain, spoil):
    messages, _ = state_messages()
    joint, odom = messages["joint_states"], messages["odom"]
    wanted = {
        "missing": "'ankle_2' is there 0 times", "twice": "is there 2 times", "nan": "not all finite", "huge": "not all finite",
        "short": "8 joint names with 7 positions", "no rotation": "is no rotation",
    }[spoil]  # fmt: skip
    if spoil == "missing":
        joint.name[3] = "elbow"
    elif spoil == "twice":
        joint.name[3] = joint.name[2]
    elif spoil == "nan":
        odom.twist.twist.linear.y = math.nan
    elif spoil == "huge":
        joint.velocity[0] = 1e9
    elif spoil == "short":
        joint.position = joint.position[:7]
    else:
        odom.pose.pose.orientation.w = odom.pose.pose.orientation.x = odom.pose.pose.orientation.y = 0.0
        odom.pose.pose.orientation.z = 0.0
    with pytest.raises(convert.BadMessage, match=wanted):
        brain.decode(messages)


def test_what_a_joint_beside_those_lacks_is_nothing_to_us(brain):
    messages, s = state_messages()
    joint = messages["joint_states"]
    joint.name, joint.position, joint.velocity = (
        [*joint.name, "wheel"],
        [*joint.position, 0.0],
        [*joint.velocity, math.nan],
    )
    assert np.array_equal(brain.decode(messages), s)


def test_parameters_are_the_dataclass():
    values = flatten(ControlConfig())
    assert (
        values["controller.planner.samples"] == PlannerConfig().samples
        and values["controller.planner.ahead"] == 2
        and values["controller.deadline_ms"] == 0.0
    )
    assert update(ControlConfig(), values) == ControlConfig()
    changed = update(ControlConfig(), {"controller.planner.kind": "mppi", "controller.deadline_ms": 40.0, "seed": 3})
    assert (changed.controller.planner.kind, changed.controller.deadline_ms, changed.seed) == ("mppi", 40.0, 3)
    assert update(ControlConfig(), flatten(changed)) == changed


def test_a_number_is_taken_however_it_is_written():
    """YAML makes a whole number of 5 and a number of the text 1.5."""
    values = {"slop_ms": 5, "controller.deadline_ms": 0, "flight.speed": 1.5, "weights": 7}
    changed = update(ControlConfig(), values)
    assert (changed.slop_ms, changed.flight.speed, changed.weights) == (5.0, "1.5", "7")
    assert type(changed.slop_ms) is float and changed.controller.deadline_ms is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("controller.planner.kind", "dice"), ("controller.planner.samples", 0), ("controller.planner.std", math.nan), ("seed", -1),
        ("command_delay_ms", 600.0), ("repeat_commands", 11), ("repeat_commands", -1), ("controller.planner.ahead", -1),
        ("controller.planner.beta", 1.0), ("controller.k", 0), ("robot", "whale"), ("controller.planner.horizon", 1.5), ("no.such", 1),
        ("thread_priority", 100), ("thread_priority", -1), ("slop_ms", "5"), ("slop_ms", True), ("slop_ms", None), ("slop_ms", [5.0]),
        ("seed", 1.0), ("weights", True), ("controller.deadline_ms", False), ("controller.deadline_ms", None),
    ],
)  # fmt: skip
def test_nonsense_is_refused_with_its_value(name, value):
    with pytest.raises(UsageError, match="valid: ") as refused:
        check(update(ControlConfig(), {name: value}))
    assert str(value) in str(refused.value) or name in str(refused.value)


def drive(brain: AntBrain, events: str, prepare: bool = False) -> tuple[list[np.ndarray], list, Loop]:
    """s: a state and its plan in time; m: a miss; l: a state whose plan comes after one miss; o: held by the operator."""
    robot = Ant(threads=1)
    s = robot.reset([HEALTHY], [0])
    loop, sent, rows = Loop(brain, 0, 1), [], []
    for k, event in enumerate(events):
        if event in "sl":
            job = loop.begin(s[0], k * DT, k * DT)
            planned = loop.plan(job)
            if event == "l":
                action, row = loop.miss(PLANNING)
                sent.append(action)
                rows.append(row)
            action, row = loop.finish(job, planned, k * DT)
            rows.append(row)
            if action is not None:
                sent.append(action)
        else:
            action, row = loop.miss(OPERATOR if event == "o" else STATE)
            sent.append(action)
            rows.append(row)
        if prepare and event != "o":
            memory = loop.memory
            loop.take(memory, brain.prepare(memory), 1.0)
        s = robot.step(sent[-1][None])
    return sent, rows, loop


def test_preparing_changes_no_command_and_is_forgotten_after_a_miss():
    planner = PlannerConfig(samples=16, horizon=4, iterations=3, ahead=2)
    brain = ant(ControlConfig(controller=ControllerConfig(planner=planner)), None)
    events = "ssssmsslsssos"
    sent, rows, loop = drive(brain, events)
    early, told, other = drive(brain, events, prepare=True)
    assert all(np.array_equal(a, b) for a, b in zip(sent, early, strict=True))
    assert not any(np.isfinite(r.prepare_ms) for r in rows)
    # The first plan, and what follows a miss, begin with nothing that was prepared before the state came.
    expected = [k > 0 and events[k - 1] in "sl" for k in range(len(events)) if events[k] in "sl"]
    assert [np.isfinite(r.prepare_ms) for r in told if r.kind in (STEP, LATE)] == expected
    memory = other.memory
    other.take(loop.memory, loop.memory, 1.0)  # made of another memory
    assert other.memory is memory


def test_every_event_gives_one_bounded_command(brain):
    events = "sssmsmmmmmmslsllmssos"
    sent, rows, loop = drive(brain, events)
    assert len(sent) == len(events) == loop.seq
    assert all(a.shape == (8,) and np.isfinite(a).all() and (np.abs(a) <= 1).all() for a in sent)
    assert [int(r.kind) for r in rows].count(LATE) == events.count("l")
    commands = [r for r in rows if r.kind in (STEP, MISS)]
    assert [r.seq for r in commands] == list(range(1, len(events) + 1))


def test_a_miss_holds_the_plan_then_relaxes_and_a_plan_ends_it():
    # Frozen: an adapter may predict worse than theta after twenty misses, and the plan be THETA's instead of OK.
    planner = PlannerConfig(samples=16, horizon=6, iterations=1)
    brain = ant(ControlConfig(controller=ControllerConfig(adapter="frozen", planner=planner)), None)
    sent, rows, _ = drive(brain, "sss" + "m" * 20 + "s")
    assert [r.event for r in rows[3:]] == [HOLD] * 3 + [RELAX] * 17 + [OK]
    size = [np.abs(a).max() for a in sent]
    relaxing = size[5:23]  # from the last action held on
    assert all(b <= a for a, b in itertools.pairwise(relaxing)) and relaxing[-1] < 0.01


def test_the_operator_is_obeyed_at_once(brain):
    sent, rows, _ = drive(brain, "ssso")
    assert rows[-1].event == RELAX
    np.testing.assert_allclose(sent[-1], 0.7 * sent[-2], atol=1e-6)


def test_a_late_plan_is_not_sent_but_held_from_then_on(brain):
    sent, _, loop = drive(brain, "ssl")
    guard = loop.memory.guard
    assert guard.failures.item() == 1 and np.array_equal(guard.action[0].numpy(), sent[-1])
    plan = guard.plan[0, 2].numpy().copy()
    action, row = loop.miss(STATE)
    assert row.event == HOLD and np.array_equal(action, plan.clip(-1, 1))


@pytest.mark.parametrize(("causes", "sent"), [((STATE,), True), ((STATE, STATE), False), ((OPERATOR,), False)])
def test_a_plan_for_the_time_at_which_it_is_ready_is_sent_after_one_miss(brain, causes, sent):
    loop, s = Loop(brain, 0, 1), brain.rest()
    job = loop.begin(s, 0, 0, DT // 5)
    loop.finish(job, loop.plan(job), DT // 5)
    job = loop.begin(s, DT, DT, DT // 5)
    planned = loop.plan(job)
    for cause in causes:
        loop.miss(cause, None, DT)
    seq = loop.seq
    action, row = loop.finish(job, planned, DT + DT // 5)
    assert row is not None and row.begun == 1
    if sent:
        assert row.kind == STEP and row.seq == loop.seq == seq + 1 and np.array_equal(action, planned[0])
        assert loop.memory is planned[1] and loop.stamp == DT
    else:
        assert row.kind == LATE and action is None and loop.seq == seq


def test_a_plan_that_failed_corrects_nothing():
    brain = ant(ControlConfig(controller=ControllerConfig(planner=PlannerConfig(samples=16, horizon=6))), None)
    loop, s = Loop(brain, 0, 1), brain.rest()
    for k, seen in enumerate((s, np.full_like(s, np.nan))):
        job = loop.begin(seen, k * DT, k * DT, DT // 5)
        planned = loop.plan(job)
        if k:
            loop.miss(STATE, None, DT)
        action, row = loop.finish(job, planned, k * DT + DT // 5)
    assert action is None and row is not None and row.kind == LATE and loop.memory.guard.failures.item() > 0


def test_every_order_of_events_is_replayed_to_the_bit():
    """s: a state in time; c: its plan corrects a miss; l: it is late; b: nothing comes and a plan was foreseen, m: none; o: operator; r: reset; p: it
    was not active for a moment, of which no row tells."""
    planner = PlannerConfig(samples=16, horizon=4, iterations=3, ahead=2)
    brain = ant(ControlConfig(controller=ControllerConfig(planner=planner)), None)
    events = "sscsbscbsbmslsobsrsbcsllbspss" + "".join(np.random.default_rng(0).choice(list("sscblmorp"), 40))
    robot = Ant(threads=1)
    s = robot.reset([HEALTHY], [0])
    loop, told, states = Loop(brain, 0, 1), [], {}
    for k, event in enumerate(events):
        stamp, acts = k * DT, k * DT + DT // 5
        if event in "scl":
            states[stamp] = s[0]
            job = loop.begin(s[0], stamp, stamp, DT // 5)
            planned = loop.plan(job)
            for _ in range("scl".index(event)):
                told.append(loop.miss(PLANNING, None, stamp))
            told.append(loop.finish(job, planned, acts))
        elif event == "r":
            told.append((None, loop.reset()))
        elif event == "p":
            loop.pause()
            continue
        else:
            if event == "b":
                loop.foresee(loop.memory, brain.foresee(brain.prepare(loop.memory)))
            told.append(loop.miss(OPERATOR if event == "o" else STATE, None, acts))
        if told[-1][0] is not None:
            s = robot.step(told[-1][0][None])
    kinds = [(row.kind, row.event == BLIND, row.begun < row.seq - 1) for _, row in told]
    assert {(STEP, False, True), (MISS, True, False)} <= set(kinds) and any(kind == LATE for kind, *_ in kinds)
    again = Loop(brain, 0, 1)
    memories = {0: again.memory}
    for action, row in told:
        made = redo(again, row, memories, states)
        assert (made is None) == (action is None) and (action is None or np.array_equal(made, action))
        memories[again.seq] = again.memory


def test_nothing_is_learned_across_a_gap(brain):
    for events, learned in (("ssss", 3), ("ssms", 1), ("sslss", 3)):
        _, _, loop = drive(brain, events)
        assert int(loop.memory.recent.mask.sum()) == learned, events
    loop = Loop(brain, 0, 1)
    s = brain.rest()
    for stamp in (0, DT, 3 * DT, 4 * DT):  # one state was lost on its way, without a miss
        job = loop.begin(s, stamp, stamp)
        loop.finish(job, loop.plan(job), stamp)
        assert bool(job.broken) == (stamp in (0, 3 * DT))
    assert int(loop.memory.recent.mask.sum()) == 2


def test_a_reset_forgets_and_a_plan_made_before_it_is_dropped(brain):
    _, _, loop = drive(brain, "sssss")
    last = loop.memory.guard.action.clone()
    job = loop.begin(brain.rest(), 9 * DT, 9 * DT)
    loop.reset()
    assert not loop.memory.recent.mask.any() and np.array_equal(loop.memory.guard.action, last)
    d = Diagnostics(*(np.zeros(1) for _ in range(4)), 0.0, 0.0, 0.0)
    assert loop.finish(job, (np.ones(8), job.memory, d), 0) == (None, None) and loop.seq == 5
