"""One thread: the tests check numbers, and small tensors are faster so."""

import torch

torch.set_num_threads(1)
