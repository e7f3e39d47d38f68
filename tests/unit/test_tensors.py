"""Tensors on disk: whole, under a name of their own, and a fault in writing them told as what it is."""

import errno
import os

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from dynamics import tensors


def test_what_another_writes_meanwhile_is_not_replaced(tmp_path, monkeypatch):
    real, others = os.link, iter(("x-00000.safetensors", "x-00001.safetensors"))

    def link(source, target):
        if (other := next(others, None)) is not None:
            (tmp_path / other).write_text("another's")
        real(source, target)

    monkeypatch.setattr(os, "link", link)
    path = tensors.write_next(tmp_path, "x", {"a": torch.ones(2)}, {})
    assert path.name == "x-00002.safetensors" and torch.equal(load_file(path)["a"], torch.ones(2))
    assert sorted(p.name for p in tmp_path.iterdir()) == [f"x-0000{i}.safetensors" for i in range(3)]
    assert (tmp_path / "x-00000.safetensors").read_text() == "another's"


def test_a_file_system_without_links_will_do(tmp_path, monkeypatch):
    def link(source, target):
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", link)
    names = [tensors.write_next(tmp_path, "x", {"a": torch.ones(2)}, {}).name for _ in range(2)]
    assert sorted(p.name for p in tmp_path.iterdir()) == names


def test_what_the_dead_left_behind_is_removed_and_of_the_living_nothing(tmp_path):
    kept = tensors.write_next(tmp_path, "x", {"a": torch.ones(2)}, {})
    dead, living = (tmp_path / tensors.partial("x", process) for process in (2**22 + 1, os.getppid()))
    elsewhere = tmp_path / "x.another-host.1.partial"
    for path in (dead, living, elsewhere):
        path.touch()
    new = tensors.write_next(tmp_path, "x", {"a": torch.ones(2)}, {})
    assert set(tmp_path.iterdir()) == {kept, new, living, elsewhere}


@pytest.mark.parametrize("write", [tensors.write, lambda path, *x: tensors.write_next(path.parent, "x", *x)])
def test_a_full_disk_is_an_oserror_and_leaves_nothing_half(write, tmp_path, monkeypatch):
    def full(_, path, __):
        path.write_bytes(b"half")
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(tensors, "save_file", full)
    with pytest.raises(OSError, match="No space left on device") as e:
        write(tmp_path / "x.safetensors", {"a": torch.ones(2)}, {})
    assert e.value.errno == errno.ENOSPC and str(tmp_path) in e.value.filename
    assert not list(tmp_path.iterdir())
