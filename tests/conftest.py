"""One torch thread, as the command sets it: on shared cores two wait for each other more than they work."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

torch.set_num_threads(1)
