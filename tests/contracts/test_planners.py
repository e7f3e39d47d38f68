"""Laws every sampling planner keeps, on a double integrator: its optimum is known (Riccati), and it is stepped by a
formula, so that no matrix product rounds a robot's prediction differently in another batch."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from planners.cem import CEM
from planners.icem import ICEM
from planners.mppi import MPPI
from planners.random_shooting import RandomShooting
from planners.shooting import Memory, Shooting

DT, HORIZON, B = 0.2, 10, 3  # [s], steps, robots
START = torch.tensor([[1.0, 0.0], [-0.5, 1.0], [2.0, -1.0]])  # (b, 2) position [m], velocity [m/s]
BROAD = {"n_action": 1, "horizon": HORIZON, "low": -5.0, "high": 5.0}

PLANNERS = [
    RandomShooting(**BROAD, samples=128, iterations=2, std=0.3),
    CEM(**BROAD, samples=128, iterations=3, std=1.0, std_floor=0.05),
    ICEM(**BROAD, samples=128, iterations=2, std=1.0, std_floor=0.05, execute="best"),
    MPPI(**BROAD, samples=128, iterations=2, std=0.3, temperature=0.01),
    ICEM(**BROAD, samples=128, iterations=2, std=1.0, std_floor=0.05, elites=32, weighting="rank"),
]
NAMES = ["RandomShooting", "CEM", "ICEM", "MPPI", "ICEM by rank"]
each_planner = pytest.mark.parametrize("planner", PLANNERS, ids=NAMES)


def predict(s: Tensor, a: Tensor) -> Tensor:
    """(*b, 2), (*b, a) -> (*b, 2). The first action is the acceleration [m/s2]; others do nothing."""
    p, v, u = s[..., 0], s[..., 1], a[..., 0]
    return torch.stack((p + DT * v + DT**2 / 2 * u, v + DT * u), -1)


def cost(s: Tensor, a: Tensor, s_next: Tensor) -> Tensor:
    return s_next[..., 0] ** 2 + 0.1 * s_next[..., 1] ** 2 + 0.1 * a[..., 0] ** 2


def total(s: Tensor, actions: Tensor) -> Tensor:
    """(b, 2), (b, h, a) -> (b,) cost of a plan, float64."""
    s, sum_ = s.double(), torch.zeros(len(s), dtype=torch.float64)
    for a in actions.double().unbind(1):
        s_next = predict(s, a)
        sum_, s = sum_ + cost(s, a, s_next), s_next
    return sum_


def riccati(horizon: int) -> tuple[np.ndarray, np.ndarray]:
    """-> P, K: the least cost from s is s'Ps, its first action -Ks (discrete time, cost on the next state)."""
    a, b = np.array([[1, DT], [0, 1]]), np.array([[DT**2 / 2], [DT]])
    q, r = np.diag([1, 0.1]), np.array([[0.1]])
    p, k = np.zeros((2, 2)), np.zeros((1, 2))
    for _ in range(horizon):
        w = q + p
        k = np.linalg.solve(r + b.T @ w @ b, b.T @ w @ a)
        p = a.T @ w @ (a - b @ k)
    return p, k


def generators(b: int = B, seed: int = 0) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(100 * seed + i) for i in range(b)]


def plan(planner: Shooting, s: Tensor = START, model=predict, price=cost, seed: int = 0):
    return planner.plan(planner.init(len(s)), model, s, price, generators(len(s), seed))


def test_a_cost_behind_the_horizon_is_seen():
    """With what follows exactly priced, two steps ahead are as good as twelve: Bellman's principle."""
    p, _ = riccati(10)
    rest = torch.tensor(p, dtype=torch.float32)
    short = ICEM(**(BROAD | {"horizon": 2}), samples=256, iterations=15, std=3.0, std_floor=0.0)
    made, _ = short.plan(
        short.init(B), predict, START, cost, generators(), lambda s: torch.einsum("bni,ij,bnj->bn", s, rest, s)
    )
    blind, _ = short.plan(short.init(B), predict, START, cost, generators())
    least, gain = riccati(12)
    expected = -(START @ torch.tensor(gain, dtype=torch.float32).T)
    torch.testing.assert_close(made.actions[:, 0], expected, atol=0.01, rtol=0.01)
    assert ((blind.actions[:, 0] - expected).abs() > 0.3).all()
    best = torch.einsum("bi,ij,bj->b", START.double(), torch.tensor(least), START.double())
    torch.testing.assert_close(made.cost.double(), best, atol=0.0, rtol=1e-3)


def test_a_candidate_that_ends_where_no_cost_is_known_is_not_taken():
    planner = PLANNERS[2]

    def unknown(s: Tensor) -> Tensor:
        return torch.where(s[..., 0] > 0, torch.nan, 0.0)

    made, _ = planner.plan(planner.init(B), predict, START, cost, generators(), unknown)
    end = START[:, None]
    for a in made.actions.unbind(1):
        end = predict(end, a[:, None])
    assert (end[made.valid][:, 0, 0] <= 0.05).all() and made.valid[1]


@each_planner
def test_actions_stay_within_bounds(planner):
    # Bounds that zero is outside of, and noise much wider than they are.
    tight = replace(planner, n_action=3, low=0.2, high=0.9, std=5.0)
    made, memory = plan(tight)
    _, memory = tight.plan(memory, predict, START, cost, generators(seed=1))
    assert made.actions.shape == (B, HORIZON, 3)
    for actions in (made.actions, memory.mean, memory.elites):
        assert ((actions >= 0.2) & (actions <= 0.9)).all()


@each_planner
def test_same_generator_gives_the_same_plan_and_another_another(planner):
    first, again, other = plan(planner), plan(planner), plan(planner, seed=1)
    for x, y in zip((*first[0], *first[1]), (*again[0], *again[1]), strict=True):
        assert torch.equal(x, y)
    assert not torch.equal(first[0].actions, other[0].actions)


@each_planner
def test_planning_mutates_nothing_but_the_generators(planner):
    memory, s = plan(planner)[1], START.clone()
    before = [x.clone() for x in memory]
    planner.plan(memory, predict, s, cost, generators(seed=1))
    assert torch.equal(s, START)
    assert all(torch.equal(x, y) for x, y in zip(memory, before, strict=True))


@each_planner
def test_a_robots_plan_does_not_depend_on_its_batch_mates(planner):
    memory = planner.init(B)
    alone = [planner.init(1) for _ in range(B)]
    rngs, rngs_alone = generators(), generators()
    for _ in range(3):
        made, memory = planner.plan(memory, predict, START, cost, rngs)
        for i in range(B):
            one, alone[i] = planner.plan(alone[i], predict, START[i : i + 1], cost, rngs_alone[i : i + 1])
            torch.testing.assert_close(one.actions[0], made.actions[i], atol=1e-5, rtol=0)
            torch.testing.assert_close(one.cost[0], made.cost[i], atol=1e-5, rtol=1e-5)


@each_planner
def test_work_ahead_from_where_the_robot_will_be_changes_nothing(planner):
    early = replace(planner, iterations=4, ahead=3)
    _, memory = plan(early)
    s, rngs, both = START + 0.3, generators(seed=1), generators(seed=1)
    whole, after = early.plan(memory, predict, s, cost, rngs)
    search = early.prepare(memory, predict, s, cost, both)
    made, then = early.plan(memory, predict, s, cost, both, search=search)
    assert torch.equal(made.actions, whole.actions) and torch.equal(then.mean, after.mean)
    assert torch.equal(then.elites, after.elites)
    # From a little beside it the plan still differs from the last one, and is no worse by much.
    search = early.prepare(memory, predict, s + 0.05, cost, generators(seed=1))
    beside, _ = early.plan(memory, predict, s, cost, generators(seed=2), search=search)
    assert (total(s, beside.actions) < 1.1 * total(s, whole.actions) + 0.05).all()


TOLERANCE = {RandomShooting: 0.05, CEM: 0.02, ICEM: 0.02, MPPI: 0.02}  # relative, over the least cost


@each_planner
def test_many_iterations_approach_the_riccati_solution(planner):
    p, _ = riccati(HORIZON)
    least = torch.as_tensor(np.einsum("bi,ij,bj->b", START.numpy(), p, START.numpy()))
    patient = replace(planner, samples=256, iterations=20, std_floor=0.02)
    for seed in range(3):
        made, _ = plan(patient, seed=seed)
        reached = total(START, made.actions)
        assert (reached >= least - 1e-6).all()
        assert (reached <= (1 + TOLERANCE[type(planner)]) * least).all(), reached / least
        assert (reached < total(START, torch.zeros_like(made.actions))).all()


def drive(planner: Shooting, steps: int, warm: bool = True) -> Tensor:
    """Plan, carry out the first action, plan again. -> (b,) cost of the whole drive."""
    s, memory, rngs, sum_ = START, planner.init(B), generators(), torch.zeros(B)
    for _ in range(steps):
        made, memory = planner.plan(memory if warm else planner.init(B), predict, s, cost, rngs)
        s_next = predict(s, made.actions[:, 0])
        sum_, s = sum_ + cost(s, made.actions[:, 0], s_next), s_next
    return sum_


@each_planner
def test_replanning_from_a_warm_start_approaches_the_linear_quadratic_regulator(planner):
    _, k = riccati(HORIZON)
    s, least = START.double(), torch.zeros(B, dtype=torch.float64)
    for _ in range(30):
        a = -s @ torch.as_tensor(k).mT
        s_next = predict(s, a)
        least, s = least + cost(s, a, s_next), s_next
    assert (drive(planner, 30).sum() < 1.15 * least.sum()).all()
    hasty = replace(planner, iterations=1, samples=32)
    assert drive(hasty, 30).sum() < 0.95 * drive(hasty, 30, warm=False).sum()


class Watch:
    """A cost that remembers the total cost of every candidate in every iteration."""

    def __init__(self) -> None:
        self.scored: list[tuple[Tensor, Tensor]] = []

    def __call__(self, s: Tensor, a: Tensor, s_next: Tensor) -> Tensor:
        self.scored.append((a.clone(), cost(s, a, s_next)))
        return self.scored[-1][1]

    def iterations(self) -> list[tuple[Tensor, Tensor]]:
        """-> candidates (b, n, h, a), costs (b, n), for each iteration."""
        return [(a.permute(1, 2, 0, 3), price.sum(0)) for a, price in self.scored]


@pytest.mark.parametrize("planner", [PLANNERS[0], PLANNERS[2]], ids=["RandomShooting", "ICEM"])
def test_keepers_of_elites_never_worsen(planner):
    watch = Watch()
    few = replace(planner, iterations=8, samples=16, **({"elites": 8} if planner.keep else {}))
    made, _ = plan(few, price=watch)
    best = torch.stack([costs.min(1).values for _, costs in watch.iterations()])
    assert len(best) == 8
    assert (best.diff(dim=0) <= 1e-6).all() and (best[-1] < best[0]).all()
    torch.testing.assert_close(made.cost, best[-1])


@pytest.mark.parametrize("planner", PLANNERS[1:3], ids=["CEM", "ICEM"])
def test_the_deviation_shrinks_to_its_floor_and_no_further(planner):
    for floor in (0.2, 0.01):
        watch = Watch()
        plan(replace(planner, iterations=15, samples=512, std_floor=floor), price=watch)
        first, last = (watch.iterations()[i][0].std(1).mean() for i in (0, -1))
        assert first == pytest.approx(planner.std, rel=0.1)
        # The floor holds within sampling error; where the elites are tighter than it, it is also where they end.
        assert 0.9 * floor < last < 1.5 * floor


@pytest.mark.parametrize("beta", [0.0, 0.7, 0.95])
def test_noise_has_unit_variance_and_correlation_beta_at_lag_one(beta):
    noise = CEM(n_action=2, horizon=6, beta=beta).noise(20_000, generators(2))
    assert noise.shape == (2, 20_000, 6, 2)
    assert noise.mean(1).abs().max() < 0.04
    torch.testing.assert_close(noise.var(1), torch.ones(2, 6, 2), atol=0.06, rtol=0)
    for lag in (1, 2):
        correlation = (noise[:, :, lag:] * noise[:, :, :-lag]).mean(1)
        torch.testing.assert_close(correlation, torch.full_like(correlation, beta**lag), atol=0.06, rtol=0)
    # Independent between robots and between actions.
    for x, y in ((noise[0], noise[1]), (noise[0, ..., 0], noise[0, ..., 1])):
        assert (x * y).mean(0).abs().max() < 0.04


def test_elites_count_alike_or_by_their_rank():
    """The best of three weighs log 3.5, the others log(3.5 / 2) and log(3.5 / 3), as shares of their sum."""
    actions = torch.tensor([3.0, 100.0, 1.0, 2.0])[None, :, None, None]  # (b, n, h, a)
    costs = torch.tensor([[0.3, torch.inf, 0.1, 0.2]])
    for weighting, weight in (("even", np.ones(3)), ("rank", np.log(3.5 / np.arange(1, 4)))):
        planner = CEM(n_action=1, horizon=1, samples=4, elites=3, momentum=0.0, weighting=weighting)
        for dead in (0, 1):  # the last elites that did not survive count for nothing
            given = torch.where(costs > 0.25, torch.inf, costs) if dead else costs
            share = (weight * np.array([1, 1, not dead])) / (weight * np.array([1, 1, not dead])).sum()
            mean, std = planner.refit(torch.zeros(1, 1, 1), torch.ones(1, 1, 1), actions, given)
            centre = share @ np.array([1.0, 2.0, 3.0])
            assert mean.item() == pytest.approx(centre, rel=1e-5)
            assert std.item() == pytest.approx(np.sqrt(share @ (np.array([1.0, 2.0, 3.0]) - centre) ** 2), rel=1e-5)


def test_mppi_weights_sum_to_one():
    costs = torch.randn(4, 50, generator=torch.Generator().manual_seed(0)) * torch.tensor([[1e-3], [1], [1e3], [1e6]])
    costs[:, ::7] = torch.inf
    for temperature in (1e-6, 0.1, 1.0, 1e3):
        weights = MPPI(temperature=temperature).weights(costs)
        torch.testing.assert_close(weights.sum(1), torch.ones(4))
        assert (weights >= 0).all() and (weights[:, ::7] == 0).all()
        assert torch.equal(weights.argmax(1), costs.argmin(1))
    # Costs that differ by a constant weigh the same; a high temperature weighs all alike.
    costs = torch.randn(4, 50, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(MPPI().weights(costs), MPPI().weights(costs + 8), atol=1e-6, rtol=0)
    torch.testing.assert_close(MPPI(temperature=1e6).weights(costs), torch.full((4, 50), 1 / 50))


def test_mppi_without_temperature_picks_the_best_sample():
    watch = Watch()
    made, _ = plan(replace(PLANNERS[3], iterations=1, temperature=1e-9), price=watch)
    (candidates, costs), *rest = watch.iterations()
    assert not rest
    torch.testing.assert_close(made.actions, candidates[torch.arange(B), costs.argmin(1)], atol=1e-6, rtol=0)


def poisoned(value: float, below: float):
    """The integrator, but its prediction is `value` for actions below `below`."""
    return lambda s, a: torch.where(a[..., :1] < below, torch.full_like(s, value), predict(s, a))


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@each_planner
def test_a_failing_sample_is_never_chosen(planner, value):
    # The optimum brakes, so every planner is drawn to actions below 0; below -0.4 the model breaks down.
    made, memory = plan(replace(planner, iterations=4), model=poisoned(value, -0.4))
    assert made.valid.all() and made.cost.isfinite().all()
    assert (made.actions >= -0.4).all() and made.actions.isfinite().all() and memory.mean.isfinite().all()
    assert (plan(planner)[0].actions < -0.4).any()  # with a sound model they go there


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@each_planner
def test_a_cost_that_fails_is_never_chosen(planner, value):
    def price(s: Tensor, a: Tensor, s_next: Tensor) -> Tensor:
        return torch.where(a[..., 0] < -0.4, value, cost(s, a, s_next))

    made, _ = plan(replace(planner, iterations=4), price=price)
    assert made.valid.all() and (made.actions >= -0.4).all()


def test_a_prediction_that_fails_where_the_cost_does_not_look_is_seen():
    def model(s: Tensor, a: Tensor) -> Tensor:
        return torch.cat((predict(s, a), torch.where(a < -0.4, torch.nan, s[..., 2:])), -1)

    made, _ = plan(replace(PLANNERS[0], iterations=4), torch.cat((START, torch.zeros(B, 1)), 1), model)
    assert (made.actions >= -0.4).all()


@each_planner
def test_the_refit_ignores_failing_samples_however_few_are_left(planner):
    rng = torch.Generator().manual_seed(0)
    actions = torch.randn(B, planner.samples, HORIZON, 1, generator=rng)
    costs = torch.rand(B, planner.samples, generator=rng)
    costs[:, 5:] = torch.inf
    mean, std = torch.zeros(B, HORIZON, 1), torch.ones(B, HORIZON, 1)
    elsewhere = actions.clone()
    elsewhere[:, 5:] = 4.0
    for x, y in zip(planner.refit(mean, std, actions, costs), planner.refit(mean, std, elsewhere, costs), strict=True):
        torch.testing.assert_close(x, y)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@each_planner
def test_where_every_sample_fails_the_plan_says_so_and_stays_safe(planner, value):
    # Robot 1 starts where the model is broken; its mates must not notice.
    def model(s: Tensor, a: Tensor) -> Tensor:
        broken = (s[..., :1] < 0) | ~s[..., :1].isfinite()
        return torch.where(broken, torch.full_like(s, value), predict(s, a))

    s = torch.tensor([[3.0, 0.0], [-0.5, 1.0], [4.0, 0.0]])
    made, memory = plan(planner, s, model)
    assert made.valid.tolist() == [True, False, True]
    assert made.cost[1] == torch.inf and made.cost[[0, 2]].isfinite().all()
    assert made.actions.isfinite().all() and (made.actions.abs() <= 5).all()
    assert torch.equal(memory.mean[1], planner.init(1).mean[0])  # nothing was learned, nothing is forgotten
    sound, _ = plan(planner, s.abs(), model)
    assert torch.equal(made.actions[[0, 2]], sound.actions[[0, 2]])
    # The memory is fit to plan from again.
    after, _ = planner.plan(memory, predict, s, cost, generators(seed=1))
    assert after.valid.all() and after.actions.isfinite().all()


@pytest.mark.parametrize(
    "planner",
    [*PLANNERS, replace(PLANNERS[2], kept=0, samples=16, elites=8, iterations=8), replace(PLANNERS[2], execute="mean")],
    ids=[*NAMES, "ICEM that forgets", "ICEM's mean"],
)
def test_the_cost_of_a_plan_is_its_best_candidates(planner):
    watch = Watch()
    made, _ = plan(planner, price=watch)
    torch.testing.assert_close(made.cost, torch.cat([costs for _, costs in watch.iterations()], 1).min(1).values)
    # Two carry that candidate out; the others a mean that nobody scored.
    if isinstance(planner, RandomShooting) or (isinstance(planner, ICEM) and planner.execute == "best"):
        torch.testing.assert_close(made.cost.double(), total(START, made.actions), atol=1e-5, rtol=1e-5)


@each_planner
def test_the_warm_start_is_the_last_plan_without_its_first_action(planner):
    _, memory = plan(planner)
    still = replace(planner, std=0.0, std_floor=0.0)
    memory = Memory(memory.mean, memory.mean[:, None].expand_as(memory.elites))
    made, _ = still.plan(memory, predict, START, cost, generators())
    shifted = torch.cat((memory.mean[:, 1:], memory.mean[:, -1:]), 1)
    torch.testing.assert_close(made.actions, shifted, atol=1e-5, rtol=0)
