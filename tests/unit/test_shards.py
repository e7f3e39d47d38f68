"""Datasets on disk: what is appended is loaded, windows never cross episodes, some are held out, bad shards are refused."""

import json

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from dynamics import data, objectives, tune
from dynamics.data import DataError


def shard(folder, b: int, t: int, seed: int, episode: Tensor | None = None, **meta) -> dict[str, Tensor]:
    rng = torch.Generator().manual_seed(seed)
    columns = {
        "s": torch.randn(b, t, 31, generator=rng), "a": torch.rand(b, t, 8, generator=rng) * 2 - 1,
        "s_next": torch.randn(b, t, 31, generator=rng), "episode": torch.zeros(b, t) if episode is None else episode,
    }  # fmt: skip
    data.append(folder, **columns, meta={"robot": "ant", **meta})
    return columns


def load(folder) -> data.Rows:
    return data.load(folder, "ant", 31, 8)


def test_what_is_appended_is_loaded(tmp_path):
    first = shard(tmp_path, 3, 5, 0, conditions=["healthy", "leg:0", "healthy"])
    second = shard(tmp_path, 2, 4, 1)
    assert [p.name for p in data.shards(tmp_path)] == ["shard-00000.safetensors", "shard-00001.safetensors"]
    assert not list(tmp_path.glob("*.partial"))
    rows = load(tmp_path)
    for name in ("s", "a", "s_next"):
        assert torch.equal(getattr(rows, name), torch.cat([c[name].flatten(0, 1) for c in (first, second)]))
    assert rows.episode.tolist() == [0] * 5 + [1] * 5 + [2] * 5 + [3] * 4 + [4] * 4
    assert rows.shard.tolist() == [0] * 15 + [1] * 8
    assert rows.healthy.tolist() == [True] * 5 + [False] * 5 + [True] * 5 + [False] * 8  # unknown is not healthy
    assert (
        torch.equal(rows.told.isfinite(), rows.healthy[:, None].expand(-1, 8)) and (rows.told[rows.healthy] == 1).all()
    )
    loaded, meta = data.read_shard(data.shards(tmp_path)[0], "ant", 31, 8)
    assert meta["conditions"][1] == "leg:0" and all(torch.equal(loaded[n], first[n]) for n in first)


def test_windows_never_cross_episodes(tmp_path):
    # Rows of several episodes, some a single transition long; s counts the rows.
    episode = torch.tensor([[0, 0, 0, 1, 1, 1, 1, 2, 3, 3], [0] * 10, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]])
    shard(tmp_path, 3, 10, 0, episode)
    shard(tmp_path, 3, 10, 1, episode.flip(0))
    rows = load(tmp_path)
    rows = data.Rows(torch.arange(60.0)[:, None].expand(-1, 31), *tuple(rows)[1:])
    assert rows.episode.unique_consecutive().tolist() == list(range(2 * (4 + 1 + 10)))
    before, ahead = data.window(rows, torch.arange(60), 6, 4)
    for at in range(60):
        same = (rows.episode == rows.episode[at]).nonzero()[:, 0]
        past, future = same[(same < at) & (same >= at - 6)], same[(same >= at) & (same < at + 4)]
        assert before.s[at, before.mask[at], 0].long().tolist() == past.tolist()
        assert ahead.s[at, ahead.mask[at], 0].long().tolist() == future.tolist()
        assert before.mask[at].tolist() == sorted(before.mask[at].tolist())  # padding comes first
        assert ahead.mask[at, 0]
    assert all(x.isfinite().all() for x in (*before[:3], *ahead[:3]))


def test_every_eighth_episode_is_held_out(tmp_path):
    for seed in range(4):
        shard(tmp_path, 8, 6, seed)
    rows = load(tmp_path)
    sampler = objectives.Sampler.of(rows)
    assert set((rows.episode[sampler.held_out] % 8).tolist()) == {7}
    drawn = sampler.draw(4000, torch.Generator().manual_seed(0))
    assert len(drawn) == 4000 and not set(drawn.tolist()) & set(sampler.held_out.tolist())
    assert set(rows.shard[drawn[2000:]].tolist()) == {3}  # the newer half comes from the newest quarter
    assert set(rows.shard[drawn[:2000]].tolist()) == {0, 1, 2, 3}
    assert sorted(torch.cat((sampler.train, sampler.held_out)).tolist()) == list(range(rows.n))


@pytest.mark.parametrize("robots", [8, 32, 72])
@pytest.mark.parametrize("count", [1, 2, 4, 8, 9, 100])
def test_of_every_condition_one_episode_in_eight_is_held_out(count, robots):
    dealt = [f"condition {i % count}" for _ in range(8) for i in range(robots)]
    held = data.held_out(dealt)
    for condition in set(dealt):
        own = held[torch.tensor([c == condition for c in dealt])]
        eights = own[: len(own) // 8 * 8].view(-1, 8).sum(1)
        assert eights.tolist() == [1] * (len(own) // 8)
        assert own[len(own) // 8 * 8 :].sum() <= 1
    assert held[:8].sum() == 1  # of any eight, as few as a dataset may have, and rare as their conditions may be
    assert len(dealt) / 9 < held.sum() < len(dealt) / 7
    for n in (8, robots, len(dealt) - 1):  # what is added changes nothing
        assert torch.equal(data.held_out(dealt[:n]), held[:n])


def test_the_conditions_of_shards_decide_what_is_held_out(tmp_path):
    rng = torch.Generator().manual_seed(0)
    # A robot that fell begins another episode, under its own condition.
    fallen = (torch.rand(16, 12, generator=rng) < 0.2).cumsum(1)
    for seed in range(3):
        shard(tmp_path, 16, 12, seed, fallen, conditions=["healthy", "leg:0", "leg:1", "leg:2"] * 4)
        rows = load(tmp_path)
        dealt = ["healthy", "leg:0", "leg:1", "leg:2"] * (4 * (seed + 1))
        robot = torch.arange(rows.n) // 12
        first = torch.cat((torch.ones(1) > 0, rows.episode.diff() > 0)).nonzero()[:, 0]
        held = data.held_out([dealt[i] for i in robot[first]])
        assert torch.equal(rows.held_out, held[rows.episode])
    sampler = objectives.Sampler.of(rows)
    assert {dealt[i] for i in robot[sampler.held_out]} == {dealt[i] for i in robot[sampler.train]} == set(dealt)
    starts = tune._starts(rows, 200, 2, rng)
    assert rows.held_out[starts].all() and {dealt[i] for i in robot[starts]} == set(dealt)


def test_a_shard_that_is_bad_is_refused(tmp_path):
    good = shard(tmp_path, 2, 4, 0)
    path = data.shards(tmp_path)[0]
    meta = {"robot": "ant"}

    def refused(match: str, meta: dict | None = meta, **changed: Tensor) -> None:
        tensors = {k: v.contiguous().clone() for k, v in (good | changed).items()}
        save_file(tensors | {"episode": tensors["episode"].int()}, path, meta and {"sealegs": json.dumps(meta)})
        with pytest.raises(DataError, match=match):
            load(tmp_path)

    nan = good["s_next"].clone()
    nan[1, 2, 7] = torch.inf
    refused(r"s_next\[1, 2, 7\] is inf", s_next=nan)
    refused(r"action of 1\.5 is out of bounds", a=torch.full((2, 4, 8), 1.5))
    refused(r"a has shape \(2, 4, 6\)", a=good["a"][..., :6])
    refused(r"s_next has shape \(2, 3, 31\)", s_next=good["s_next"][:, :3])
    refused(r"s has shape \(4, 31\)", s=good["s"][0])
    refused("'cheetah', wanted 'ant'", {"robot": "cheetah"})
    refused("None, wanted 'ant'", None)
    refused("s has shape", **{n: w[:, :0] for n, w in good.items()})
    refused("conditions", {"robot": "ant", "conditions": ["healthy"]})
