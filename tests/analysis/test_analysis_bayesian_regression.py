"""The regression against the same numbers computed another way."""

import numpy as np
import pytest

from scalesearch.analysis.bayesian_regression import fit, posterior


def test_the_posterior_is_that_of_conditioning_a_joint_gaussian() -> None:
    """Weights and values are jointly Gaussian: the mean is S0 X' (X S0 X' + N)^-1 y, without any inverse of S0."""
    rng = np.random.default_rng(1)
    design, values = rng.normal(size=(5, 3)), rng.normal(size=5)
    noise, prior_sd = rng.uniform(0.5, 2, 5), np.array([100.0, 5.0, 5.0])
    noises = np.array([noise, 3 * noise])
    (mean, _), (covariance, _), (log_evidence, other) = posterior(design, values, noises, prior_sd)
    prior = np.diag(prior_sd**2)
    joint = design @ prior @ design.T + np.diag(noise)
    assert mean == pytest.approx(prior @ design.T @ np.linalg.solve(joint, values))
    assert covariance == pytest.approx(prior - prior @ design.T @ np.linalg.solve(joint, design @ prior))
    # the evidence is p(y | w) p(w) / p(w | y) at any w, here at 0
    likelihood = -0.5 * np.sum(values**2 / noise + np.log(noise))
    prior_density = -np.sum(np.log(prior_sd))
    after = -0.5 * (mean @ np.linalg.solve(covariance, mean) + np.linalg.slogdet(covariance)[1])
    assert log_evidence == pytest.approx(likelihood + prior_density - after)
    assert other == pytest.approx(posterior(design, values, 3 * noise[None], prior_sd)[2][0])


def test_much_data_gives_least_squares_and_its_residual() -> None:
    rng = np.random.default_rng(2)
    columns = rng.normal(size=(150, 2))
    values = 7 + columns @ [3.0, -1.0] + rng.normal(0, 2, 150)
    fitted = fit(columns, values, np.full(150, 1e-6))
    design = np.column_stack([np.ones(150), columns])
    exact, (squares,), *_ = np.linalg.lstsq(design, values)
    assert fitted.value(np.array([0.5, 0.5])) == pytest.approx(exact @ [1, 0.5, 0.5], abs=0.02)
    assert fitted.weights[1:] == pytest.approx(exact[1:], abs=0.02)
    assert fitted.residual_variance == pytest.approx(squares / 147, rel=0.05)
    errors = np.sqrt(np.diag(squares / 147 * np.linalg.inv(design.T @ design)))
    assert np.sqrt(np.diag(fitted.covariance))[1:] == pytest.approx(errors[1:], rel=0.05)
