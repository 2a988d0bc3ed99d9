"""The Gaussian process tells signal from noise."""

import numpy as np

from scalesearch.analysis.gaussian_process import GaussianProcess, newest_and_best


def test_the_process_tells_noise_from_what_it_knows() -> None:
    random = np.random.default_rng(0)
    x = random.random((80, 2))
    truth = np.sin(4 * x[:, 0]) + 0.5 * x[:, 1]
    model = GaussianProcess(2)
    model.fit(x, truth + random.normal(0, 0.1, 80))
    mean, deviation = model.predict(x)
    assert 0.05 < model.noise < 0.2
    assert np.sqrt(np.mean((mean - truth) ** 2)) < 0.1
    assert deviation.max() < model.noise
    assert model.predict(np.array([[4.0, 4.0]]))[1][0] > 3 * deviation.max()


def test_of_many_observations_the_best_and_the_newest_are_kept() -> None:
    best = np.array([5.0, 0, 4, 3, 2, 9, 9, 1])
    assert newest_and_best(np.zeros((8, 1)), best, 4).tolist() == [1, 5, 6, 7]
    assert newest_and_best(np.zeros((8, 1)), best, 8).tolist() == list(range(8))


def test_what_rises_is_expected_to_go_on_rising() -> None:
    random = np.random.default_rng(1)
    x = 0.5 * random.random((15, 2))
    model = GaussianProcess(2)
    model.fit(x, 0.5 + 0.3 * x[:, 0] + random.normal(0, 0.005, 15))
    mean, deviation = model.predict(np.array([[1.0, 0.25]]))
    assert 0.67 < mean[0] < 0.85, "the highest value seen is 0.65, the truth is 0.8"
    assert deviation[0] < 0.1


def test_the_correlation_is_that_of_samples() -> None:
    random = np.random.default_rng(3)
    x = random.random((25, 2))
    model = GaussianProcess(2)
    model.fit(x, np.sin(5 * x[:, 0]) + x[:, 1] + random.normal(0, 0.1, 25))
    one, other = np.array([[0.2, 0.2], [0.2, 0.2], [1.5, 0.0]]), np.array([[0.2, 0.2], [0.4, 0.2], [0.0, 1.5]])
    found = model.correlation(one, other)
    # Samples of the values, and noise on the first three: what scikit-learn draws from the same process.
    samples = model._model.sample_y(np.concatenate([one, other + 1e-9]), 20_000, random_state=0)
    noise = np.sqrt(np.var(samples, axis=1) - 0)  # as drawn, with the noise of an observation on each
    assert noise.min() > model.noise
    drawn = np.array([np.cov(samples[row], samples[row + 3])[0, 1] for row in range(3)])
    values = np.sqrt(np.var(samples[3:], axis=1) - model.noise**2)
    expected = drawn / (np.std(samples[:3], axis=1) * values)
    np.testing.assert_allclose(found, np.clip(expected, 0, 1), atol=0.05)
    assert found[0] > found[1] > found[2]


def test_correlations_of_many_pairs_are_those_of_each() -> None:
    random = np.random.default_rng(3)
    x = random.random((25, 2))
    model = GaussianProcess(2)
    model.fit(x, np.sin(5 * x[:, 0]) + x[:, 1])
    one, other = random.random((300, 2)), random.random((300, 2))
    each = [model.correlation(one[row : row + 1], other[row : row + 1])[0] for row in (0, 127, 128, 299)]
    np.testing.assert_allclose(model.correlation(one, other)[[0, 127, 128, 299]], each, rtol=1e-6)
    assert model.correlation(one[:0], other[:0]).shape == (0,)


def test_a_kernel_is_tuned_as_by_a_fit_and_remembered() -> None:
    random = np.random.default_rng(4)
    x, other = random.random((30, 2)), random.random((9, 2))
    y = np.sin(5 * x[:, 0]) + random.normal(0, 0.1, 30)
    fitted, tuned = GaussianProcess(2), GaussianProcess(2)
    fitted.fit(x, y)
    for _ in range(2):
        tuned.tune(x, y)
    tuned.fit(x, y, tune=False)
    np.testing.assert_allclose(tuned.predict(other), fitted.predict(other))
    np.testing.assert_allclose(tuned.means(other), fitted.predict(other)[0])
    used = tuned.noise
    tuned.fit(x[:20], y[:20], tune=True)
    tuned.tune(x, y)
    tuned.fit(x, y, tune=False)
    assert tuned.noise == used, "what was fitted since does not change what is remembered"
