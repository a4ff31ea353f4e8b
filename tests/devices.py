"""Where tensors are computed on in tests: here, and on a GPU where there is one."""

import torch

GPU = "cuda:0" if torch.cuda.is_available() else ""
DEVICES = ["cpu", *([GPU] if GPU else [])]
