"""Sums over sampled responses, and the least-squares problems that pruning a layer's inputs comes down to.

A layer's output is the sum over input channels of x[s, o, c], the kernel slice w[o, c] (K weights) applied to the
patch a[s, c] (K inputs) of sample s. Only sums over samples are kept: with P = sum_s a a^T and V = W^T W,
sum_{s,o} x[s,o,c] x[s,o,d] is the sum of the (c, d) block of P * V, exact over all output channels.
"""

from typing import Protocol

import torch
from torch import Tensor

from pruning.errors import Refusal

MOST_COLUMNS = 9216
"""Patch sums take C * K squared numbers: 340 MB here, and a 1024-channel 3x3 convolution fits."""

_CHUNK = 2**24  # numbers in a temporary tensor


class Sums(Protocol):
    """What is known of the inputs and outputs of one layer; w (O, C, K) are its kernel slices.

    `samples`: number of positions added so far.
    """

    samples: int

    def add(self, patches: Tensor, error: Tensor | None = None) -> None:
        """Add samples: patches (S, C, K); `error` (S, O) is what the target exceeds the present output by."""

    def contributions(self) -> tuple[Tensor, Tensor]:
        """G (C, C) = sum x_c x_d, and b (C,) = sum x_c * target, over samples and output channels; float64."""

    def refit(self, keep: tuple[int, ...], ridge: float) -> Tensor:
        """New kernel slices (O, C, K), zero where not kept, for which the kept channels best meet the target.

        `ridge`: penalty on the change of a weight, in units of the mean squared norm of a sample's kept inputs; so it
        fades as samples are added.
        """


def make_sums(slices: Tensor, importance: Tensor | None = None) -> Sums:
    """Empty sums for these kernel slices (O, C, K).

    `importance` (O,) multiplies the outputs where they are summed over O. A layer with more than MOST_COLUMNS inputs
    (a linear one behind a large feature map) is summed by channel, and refitted by one factor a channel.
    """
    if importance is None:
        importance = slices.new_ones(slices.shape[0])
    columns = slices.shape[1] * slices.shape[2]
    return PatchSums(slices, importance) if columns <= MOST_COLUMNS else ChannelSums(slices, importance)


class PatchSums:
    """Sums by input column: P (C * K, C * K) and the patches' products with the error (C * K, O)."""

    def __init__(self, slices: Tensor, importance: Tensor):
        self.slices = slices
        self.scaled = slices.flatten(1) * importance.to(slices)[:, None]  # (O, D)
        self.error_scale = importance.to(slices)
        self.samples = 0
        columns = slices[0].numel()
        self.gram = slices.new_zeros(columns, columns)
        self.cross = slices.new_zeros(columns, len(slices))

    def add(self, patches: Tensor, error: Tensor | None = None) -> None:
        self.samples += len(patches)
        columns = patches.flatten(1).to(self.gram)  # (S, C, K) -> (S, D) with D = C * K
        self.gram.addmm_(columns.T, columns)
        if error is not None:
            self.cross.addmm_(columns.T, error.to(self.gram))

    def contributions(self) -> tuple[Tensor, Tensor]:
        # G[c, d] = sum_s,o x[s,o,c] x[s,o,d] is the sum over the (K, K) block (c, d) of P * V: P holds the products of
        # inputs, V = W^T W those of weights. Rows are taken in chunks, because V is as large as P.
        _, channels, size = self.slices.shape
        step = max(1, _CHUNK // (size * len(self.gram)))
        parts = []
        for c in range(0, channels, step):
            rows = slice(c * size, (c + step) * size)
            block = self.gram[rows] * (self.scaled[:, rows].T @ self.scaled)
            parts.append(block.reshape(-1, size, channels, size).sum((1, 3)).double())
        gram = torch.cat(parts)
        # the target is the present output, sum_d x_d, and what the error adds: b_c = sum_d G[c, d] + sum x_c error
        error = (self.cross * self.error_scale * self.scaled.T).reshape(channels, -1).double().sum(1)
        return gram, gram.sum(1) + error

    def refit(self, keep: tuple[int, ...], ridge: float) -> Tensor:
        # The second step of He et al., section 3.1: min_W ||Y - X_k W||^2 over the kept inputs k. With W = old + change
        # it is (P_kk + penalty) change = X_k^T missing. Each output has equations of its own, so its importance matters
        # in the choice of channels only.
        kept = torch.zeros(self.slices.shape[1:], dtype=torch.bool, device=self.gram.device)
        kept[list(keep)] = True
        inside, outside = kept.flatten().nonzero()[:, 0], (~kept).flatten().nonzero()[:, 0]
        weights = self.slices.flatten(1)
        # to be explained by a change of the kept weights: the error, and all that the removed inputs contributed
        missing = self.cross[inside] + self.gram[inside][:, outside] @ weights[:, outside].T
        fitted = torch.zeros_like(weights)
        # trace / samples is the mean squared norm of a sample's kept inputs. The sums grow with the samples and this
        # penalty does not, so it fades.
        gram = self.gram[inside][:, inside].double()
        change = ridge_solve(gram, missing.double(), ridge * float(gram.trace()) / self.samples)
        fitted[:, inside] = weights[:, inside] + change.T.to(weights)
        return fitted.reshape(self.slices.shape)


class ChannelSums:
    """Sums by channel: x is formed for one chunk of samples and outputs at a time."""

    def __init__(self, slices: Tensor, importance: Tensor):
        self.slices = slices
        self.importance = importance.to(slices)
        self.samples = 0
        channels = slices.shape[1]
        self.gram = torch.zeros(channels, channels, dtype=torch.float64, device=slices.device)
        self.error = torch.zeros(channels, dtype=torch.float64, device=slices.device)

    def add(self, patches: Tensor, error: Tensor | None = None) -> None:
        self.samples += len(patches)
        channels = self.slices.shape[1]
        step = max(1, _CHUNK // (len(patches) * channels))
        for o in range(0, len(self.slices), step):
            scaled = self.slices[o : o + step] * self.importance[o : o + step, None, None]
            # x[s, o, c] as in the module's docstring, a row for each sample and output: (S * O, C)
            x = torch.einsum("sck,ock->soc", patches.to(scaled), scaled).reshape(-1, channels)
            self.gram += (x.T @ x).double()
            if error is not None:
                part = error[:, o : o + step].to(scaled) * self.importance[o : o + step]
                self.error += (x.T @ part.flatten()).double()

    def contributions(self) -> tuple[Tensor, Tensor]:
        return self.gram, self.gram.sum(1) + self.error

    def refit(self, keep: tuple[int, ...], ridge: float) -> Tensor:
        penalty = ridge * float(self.gram.trace()) / self.samples
        return self.slices * channel_factors(*self.contributions(), keep, penalty).to(self.slices)[:, None]


def channel_factors(gram: Tensor, target: Tensor, keep: tuple[int, ...], penalty: float = 0.0) -> Tensor:
    """Factors f (C,), zero where not kept, that minimise sum_s (target_s - sum_{c kept} f_c x[s, c])^2.

    `gram` (C, C) and `target` (C,) are those of `Sums.contributions`; `penalty` is on sum_{c kept} (f_c - 1)^2.
    """
    index = torch.tensor(keep, device=gram.device)
    kept = gram[index][:, index]
    # Normal equations of f = 1 + change: (G_kk + penalty) change = b_k - G_kk 1. For ThiNet, whose target is the
    # present output, b = G 1, so what is missing is what the removed channels contributed.
    missing = target[index] - kept.sum(1)  # how far factors of one are from it
    factors = torch.zeros_like(target)
    factors[index] = 1 + ridge_solve(kept, missing[:, None], penalty)[:, 0]
    return factors


def ridge_solve(gram: Tensor, right: Tensor, penalty: float) -> Tensor:
    """Solution X (D, M) of (gram + penalty * I) X = right; zero where gram is zero.

    What is solved for is a *change*, so the penalty keeps weights that few samples speak of nearly as they were.
    """
    if not torch.isfinite(gram).all() or not torch.isfinite(right).all():
        raise Refusal("the responses to the calibration data are not finite")
    # Channels that never fire leave zero rows. A touch of the mean on the diagonal keeps the matrix regular and their
    # change at zero, where `right` is zero too.
    mean = float(gram.diagonal().mean())
    if mean <= 0:
        return torch.zeros_like(right)
    damped = gram + max(penalty, 1e-9 * mean) * torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    factor, failed = torch.linalg.cholesky_ex(damped)
    if failed:  # float32 sums of nearly equal columns: not quite positive
        return torch.linalg.lstsq(damped, right).solution
    return torch.cholesky_solve(right, factor)
