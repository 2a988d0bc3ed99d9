"""A Gaussian process on the axes of the space: scikit-learn's, with a linear trend and a Matérn kernel.

The kernel has one length per axis. Without the trend, it would expect the average of whatever lies beyond what it saw.
"""

import functools
import warnings
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, DotProduct, Matern, WhiteKernel

Array = NDArray[np.float64]

MOST: Final = 400
"""It is fitted to at most so many observations: the time of a fit grows with their third power."""
_LENGTHS: Final = (0.05, 20.0)
_NOISE: Final = (1e-6, 1.0)
_ROWS: Final = 128
"""So many pairs are correlated at once: the covariance of all of them would grow with the square of their number."""
_REMEMBERED: Final = 8
"""So many tuned kernels are kept: those of score and latency, of the search and of what a report shows meanwhile."""


class GaussianProcess:
    """Predicts one number from features; its lengths and noise are found by maximum likelihood.

    Args:
        features: Number of features; each should lie near 0..1.
    """

    def __init__(self, features: int) -> None:
        self._kernel: Any = _untuned(features)
        self._model: Any = None

    def tune(self, x: Array, y: Array) -> None:
        """Find lengths and noise for features (n, features) and values (n,), without fitting to them.

        It begins with the kernel of a new process, so that the result depends on these numbers alone. It is remembered
        as long as this program runs.
        """
        self._kernel = _tuned(x.shape[1], *(np.asarray(each, dtype=np.float64).tobytes() for each in (x, y)))

    def fit(self, x: Array, y: Array, *, tune: bool = True) -> None:
        """Fit to features (n, features) and values (n,); without `tune`, the kernel stays that of the fit before."""
        optimizer = "fmin_l_bfgs_b" if tune else None
        self._model = GaussianProcessRegressor(self._kernel, alpha=1e-8, normalize_y=True, optimizer=optimizer)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # a length at its bound: the axis has no effect
            self._model.fit(x, y)
        self._kernel = self._model.kernel_

    def predict(self, x: Array) -> tuple[Array, Array]:
        """Return means and standard deviations (n,) of the value itself, without the noise of an observation."""
        mean, deviation = self._model.predict(x, return_std=True)
        # The scale is that of the values: scikit-learn divides them by their standard deviation.
        noise = self._kernel.k2.noise_level * float(np.ravel(self._model._y_train_std)[0]) ** 2
        return mean, np.sqrt(np.maximum(1e-12, deviation**2 - noise))

    def means(self, x: Array) -> Array:
        """Return the means (n,) alone, which take a small part of the time."""
        found: Array = self._model.predict(x)
        return found

    def correlation(self, x: Array, y: Array) -> Array:
        """Return the correlation of an observation at each row of x with the value at that row of y (n,): 0 to 1.

        Both are (n, features). The noise of the observation is part of it.
        """
        starts = range(0, len(x), _ROWS)
        parts = [self._correlation(x[start : start + _ROWS], y[start : start + _ROWS]) for start in starts]
        return np.concatenate(parts) if parts else np.empty(0)

    def _correlation(self, x: Array, y: Array) -> Array:
        _, both = self._model.predict(np.concatenate([x, y]), return_cov=True)
        n, noise = len(x), self.noise**2
        together = np.diagonal(both[:n, n:])
        # The kernel of a row with itself has the noise, that with a row of y has none.
        own, wanted = np.diagonal(both)[:n], np.diagonal(both)[n:] - noise
        found: Array = together / np.sqrt(np.maximum(1e-12, own) * np.maximum(1e-12, wanted))
        return np.clip(found, 0.0, 1.0)

    @property
    def noise(self) -> float:
        """The standard deviation of an observation's noise, in the unit of the values."""
        return float(np.sqrt(self._kernel.k2.noise_level) * np.ravel(self._model._y_train_std)[0])


def newest_and_best(x: Array, best: Array, most: int = MOST) -> NDArray[np.int64]:
    """Return which of n observations to fit to: all of at most `most`, or the best half and the newest.

    Args:
        x: Features (n, features), oldest first.
        best: For each observation, a number that is the lower the nearer it is to the front (n,).
        most: How many to keep.
    """
    if len(x) <= most:
        return np.arange(len(x))
    nearest = set(np.argsort(best, kind="stable")[: most // 2].tolist())
    for place in range(len(x) - 1, -1, -1):
        if len(nearest) >= most:
            break
        nearest.add(place)
    return np.array(sorted(nearest))


def _untuned(features: int) -> Any:
    """Return the kernel that a tuning begins with."""
    # Fixed: the likelihood of few observations would rather have no trend and a long length.
    trend: Any = DotProduct(1.0, "fixed")
    kernel: Any = ConstantKernel(1.0, (0.05, 50.0)) * Matern(np.ones(features), _LENGTHS, nu=2.5) + trend
    return kernel + WhiteKernel(0.05, _NOISE)


@functools.lru_cache(maxsize=_REMEMBERED)
def _tuned(features: int, x: bytes, y: bytes) -> Any:
    """Return the kernel that is most likely for these numbers, which are the bytes of float64."""
    model = GaussianProcess(features)
    model.fit(np.frombuffer(x).reshape(-1, features), np.frombuffer(y))
    return model._kernel
