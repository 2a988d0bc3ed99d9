"""Measure how much a candidate's score drops when channels are removed from one layer of its dense network."""

from dataclasses import replace

from scalesearch.chain.cutter import Cutter
from scalesearch.chain.planner import Planner
from scalesearch.chain.shrink import Shrinker
from scalesearch.chain.stages import StageClock
from scalesearch.compression.sensitivity import LayerSensitivity
from scalesearch.data.finding import load_study_data
from scalesearch.measurement.device_lock import MEASURED_DEVICE, DeviceLock
from scalesearch.tasks.registry import task_for
from scalesearch.values.candidate import Candidate, Pruning
from scalesearch.values.session import Session


def layer_sensitivity(session: Session, candidate: Candidate) -> tuple[tuple[LayerSensitivity, ...], float, int]:
    """Measure, for each layer of the candidate's dense network, how much the score drops without its channels.

    The network's stored weights are used; if they are gone, it is trained again.

    Returns:
        The sensitivities, the score of the dense network as a fraction, and the number of images scored.
    """
    dense = replace(candidate, pruning=Pruning())
    plan = Planner(session)(dense)
    lock = DeviceLock(MEASURED_DEVICE)
    with lock.busy():
        task = task_for(session.settings)
        data = load_study_data(session, task.sources()).at(plan.spec.input_size)
        network = Shrinker(session, lock)(plan, data, StageClock()).network
        cutter = Cutter(plan, data, task, channel_multiple=session.target.channel_multiple)
        return cutter.sensitivity(network), cutter.score(network), cutter.images
