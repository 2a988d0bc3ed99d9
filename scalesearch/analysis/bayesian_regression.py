"""Bayesian linear regression with few observations, whose noise is known only in part.

Source: Bishop, Pattern Recognition and Machine Learning (2006), section 3.3. With prior w ~ N(0, S0) and noise N (a
diagonal matrix), the weights' posterior has the covariance S = (1/S0 + X' 1/N X)^-1 and the mean S X' 1/N y (equations
3.50, 3.51). The noise variance of an observation is the sum of its own variance, which is known, and of a residual
variance that all observations share, which is not. The posterior is therefore averaged over a grid of residual standard
deviations, each weighted by its marginal likelihood and a half-normal prior.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SLOPE_SD = 5.0
"""Standard deviation of the prior of every slope, whose mean is 0."""
_LEVEL_SD = 100.0
"""Standard deviation of the prior of the mean: so wide that it hardly has an effect."""
_RESIDUAL_SCALE = 5.0
"""Scale of the half-normal prior of the residual standard deviation."""
_RESIDUALS = np.geomspace(0.1, 20.0, 80)

_Array = NDArray[np.float64]


def posterior(design: _Array, values: _Array, noise: _Array, prior_sd: _Array) -> tuple[_Array, _Array, _Array]:
    """Return the posterior of the weights and the log marginal likelihood (up to a constant), for K noise levels.

    Args:
        design: One row for each observation, (N, M).
        values: Observed values, (N,).
        noise: Variance of each observed value at each noise level, (K, N).
        prior_sd: Standard deviation of the prior of each weight, whose mean is 0, (M,).

    Returns:
        Means (K, M), covariances (K, M, M) and log marginal likelihoods (K,).
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
    """A fitted regression; its columns are centred at their mean over the observations."""

    centre: _Array
    weights: _Array
    """Posterior mean: the value at the centre, then the slopes."""
    covariance: _Array
    residual_variance: float

    def value(self, columns: _Array) -> float:
        """Return the expected value at these columns, (M,)."""
        return float(self.weights[0] + (columns - self.centre) @ self.weights[1:])


def fit(columns: _Array, values: _Array, noise: _Array) -> Fitted:
    """Fit the regression: average the posterior's mean and covariance over the grid of residual standard deviations.

    Args:
        columns: One row for each observation, without a column for the mean, (N, M).
        values: Observed values, (N,).
        noise: Known variance of each observed value, (N,).
    """
    centre = columns.mean(axis=0)
    design = np.column_stack([np.ones(len(values)), columns - centre])
    prior_sd = np.array([_LEVEL_SD] + [SLOPE_SD] * columns.shape[1])
    means, covariances, logs = posterior(design, values, noise + _RESIDUALS[:, None] ** 2, prior_sd)
    logs = logs - 0.5 * (_RESIDUALS / _RESIDUAL_SCALE) ** 2 + np.log(_RESIDUALS)  # last term: the grid's steps widen
    shares = np.exp(logs - logs.max())
    shares /= shares.sum()
    weights: _Array = shares @ means
    apart = means - weights
    covariance: _Array = np.einsum("k,kij->ij", shares, covariances + apart[:, :, None] * apart[:, None, :])
    return Fitted(
        centre=centre, weights=weights, covariance=covariance, residual_variance=float(shares @ _RESIDUALS**2)
    )
