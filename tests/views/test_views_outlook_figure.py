"""The expected front as a figure holds the numbers of the outlook, and users' names are escaped."""

import math
from collections.abc import Callable
from dataclasses import replace

import pytest

from scalesearch.analysis.belief import Errors
from scalesearch.analysis.outlook import Outlook, Promise
from scalesearch.values.candidate import Candidate, Pruning, Quantization, Scaling
from scalesearch.values.latency import Postprocessing
from scalesearch.values.record import MeasuredTrial
from scalesearch.views.outlook_figure import outlook_figure
from scalesearch.views.words import latency_axis, score_axis


def promise(width: float, score: float, p50_ms: float) -> Promise:
    pruning, quantization = Pruning(channel_fraction=0.25), Quantization(precision="int8")
    candidate = Candidate(scaling=Scaling(width=width), pruning=pruning, quantization=quantization)
    return Promise(candidate=candidate, score=score, score_sd=0.01, p50_ms=p50_ms, log_ms_sd=0.1, growth=0.02)


def test_the_band_is_as_wide_as_the_model_doubts() -> None:
    front = (promise(0.5, 0.6, 0.1), promise(1.0, 0.8, 0.4))
    found = Outlook(front=front, best=(promise(0.75, 0.7, 0.2),), errors=None, considered=3)
    band, _, line, best = outlook_figure(found, [])["data"]
    assert line["x"] == [0.1, 0.4]
    assert line["y"] == [60.0, 80.0]
    assert band["x"] == [0.1, 0.4, 0.4, 0.1]
    assert band["y"] == pytest.approx([61.96, 81.96, 78.04, 58.04])
    assert (best["x"], best["y"], best["error_y"]["array"]) == ([0.2], [70.0], [1.96])
    assert best["text"] == ["resolution x1, 1 x 0.75 x 1, channels 25 %, int8"]
    assert not any(math.isnan(each) for each in band["y"])


def test_hovering_tells_why_a_candidate_would_be_next_and_the_title_how_far_the_model_is_off() -> None:
    first, second = promise(0.75, 0.7, 0.2), replace(promise(1.25, 0.9, 0.8), growth=0.00512, trained=240)
    off = Errors(networks=30, score_rms=0.021, latency_median=0.083)
    found = Outlook(front=(first,), best=(first, second), errors=off, considered=3)
    drawn = outlook_figure(found, [], tells_errors=True)
    best, title = drawn["data"][-1], drawn["layout"]["title"]["text"]
    assert "%{customdata}" in best["hovertemplate"]
    assert best["customdata"] == [
        "95 % of the model: ± 2.0 points, 0.164 ms to 0.243 ms<br>expected to enlarge the front by 2.00 %: number 1 "
        "of the untried ones, cost apart",
        "95 % of the model: ± 2.0 points, 0.658 ms to 0.973 ms<br>expected to enlarge the front by 0.51 %: number 2 "
        "of the untried ones, cost apart; 240 updates of its training are made",
    ]
    assert "off by 2.1 points of " in title and "8 % of latency (30 networks left out)" in title
    for plain in (outlook_figure(found, []), outlook_figure(replace(found, errors=None), [], tells_errors=True)):
        assert plain["layout"]["title"]["text"] == "The front that a model of the trials expects"


def test_without_an_outlook_nothing_is_drawn() -> None:
    assert outlook_figure(None, [])["data"] == []


def test_short_trainings_are_left_out(make_record: Callable[..., MeasuredTrial]) -> None:
    whole, short = make_record(0, p50_ms=1.0), replace(make_record(1, p50_ms=2.0), full_updates=10_000)
    found = Outlook(front=(promise(0.5, 0.6, 0.1),), best=(), errors=None, considered=1)
    data = outlook_figure(found, [whole, short])["data"]
    assert next(trace for trace in data if trace["name"] == "measured")["x"] == [1.0]
    assert short.quality and short.latency
    after = Postprocessing(p50_ms=0.5, p50_low_ms=0.4, p50_high_ms=0.6, images=64)
    quality, latency = replace(short.quality, metric="map50_95"), short.latency.beside(after, "end_to_end")
    detector = replace(short, quality=quality, latency=latency)
    assert (score_axis([detector]), latency_axis([detector])) != (score_axis([]), latency_axis([]))
    axes = outlook_figure(found, [detector])["layout"]
    assert axes["yaxis"]["title"]["text"] == f"{score_axis([detector])}, %", "although no trial is drawn"
    assert axes["xaxis"]["title"]["text"] == f"{latency_axis([detector])} (log scale)"


def test_the_words_tell_decoder_blocks_and_other_axes() -> None:
    plain = promise(0.75, 0.7, 0.2)
    scaling, pruning = Scaling(width=0.75, decoder="lraspp"), Pruning(block_fraction=0.3, sparsity="2:4")
    other = replace(plain, candidate=Candidate(scaling=scaling, pruning=pruning), sampled={"training.loss": "<focal>"})
    found = Outlook(front=(plain,), best=(plain, other), errors=None, considered=2)
    words = outlook_figure(found, [])["data"][-1]["text"][1]
    assert words == ("resolution x1, 1 x 0.75 x 1, neck lraspp, blocks 30 %, 2:4 zeros, fp32, loss &lt;focal&gt;")
