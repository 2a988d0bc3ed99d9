"""Bayesian linear regression with few observations, whose noise is known only in part.

Source: Bishop, Pattern Recognition and Machine Learning (2006), section 3.3. With prior w ~ N(0, S0) and noise N (a
diagonal matrix), the weights' posterior has the covariance S = (1/S0 + X' 1/N X)^-1 and the mean S X' 1/N y (equations
3.50, 3.51). The noise of an observation is its own error and a residual standard deviation that all share. That one is
not known: it is averaged over a grid, each value weighted by its marginal likelihood and a half-normal prior.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SLOPE_SD = 5.0
"""Prior of every slope."""
_LEVEL_SD = 100.0
"""Prior of the mean: as good as nothing is presumed of it."""
_RESIDUAL_SCALE = 5.0
"""Scale of the half-normal prior of the residual standard deviation."""
_RESIDUALS = np.geomspace(0.1, 20.0, 80)

_Array = NDArray[np.float64]


def posterior(design: _Array, values: _Array, noise: _Array, prior_sd: _Array) -> tuple[_Array, _Array, _Array]:
    """Return mean and covariance of the weights, and the log marginal likelihood less a constant, for K noises.

    Args:
        design: One row for each observation (N x M).
        values: N values.
        noise: Variance of each of them (K x N).
        prior_sd: Standard deviation of each of the M weights, which are 0 on average.

    Returns:
        K x M, K x M x M and K numbers.
    """
    weighted = design.T / noise[:, None, :]
    covariance = np.linalg.inv(np.diag(prior_sd**-2.0) + weighted @ design)
    mean = np.einsum("kij,kj->ki", covariance, weighted @ values)
    # The covariance of the values themselves, with the weights integrated out.
    marginal = (design * prior_sd**2) @ design.T + noise[:, :, None] * np.eye(len(values))
    fit = values @ np.linalg.solve(marginal, values[:, None])[:, :, 0].T
    return _floats(mean), _floats(covariance), _floats(-0.5 * (fit + np.linalg.slogdet(marginal)[1]))


def _floats(array: object) -> _Array:
    return np.asarray(array, dtype=np.float64)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitted:
    """A regression around the mean of its columns."""

    centre: _Array
    weights: _Array
    """Posterior mean: the value at the centre, then the slopes."""
    covariance: _Array
    residual_variance: float

    def value(self, columns: _Array) -> float:
        """Return the value that is expected at these columns."""
        return float(self.weights[0] + (columns - self.centre) @ self.weights[1:])


def fit(columns: _Array, values: _Array, noise: _Array) -> Fitted:
    """Average the posterior over the grid of residual standard deviations: its first two moments."""
    centre = columns.mean(axis=0)
    design = np.column_stack([np.ones(len(values)), columns - centre])
    prior_sd = np.array([_LEVEL_SD] + [SLOPE_SD] * columns.shape[1])
    means, covariances, logs = posterior(design, values, noise + _RESIDUALS[:, None] ** 2, prior_sd)
    logs = logs - 0.5 * (_RESIDUALS / _RESIDUAL_SCALE) ** 2 + np.log(_RESIDUALS)  # the last: the grid's widening steps
    shares = np.exp(logs - logs.max())
    shares /= shares.sum()
    weights: _Array = shares @ means
    apart = means - weights
    covariance: _Array = np.einsum("k,kij->ij", shares, covariances + apart[:, :, None] * apart[:, None, :])
    return Fitted(
        centre=centre, weights=weights, covariance=covariance, residual_variance=float(shares @ _RESIDUALS**2)
    )
