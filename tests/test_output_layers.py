"""Which layers give a module's answers: as our modules tell, or as was noted in a user's own module."""

import copy

from torch import nn

from scalesearch.networks.backbone import Backbone
from scalesearch.output_layers import mark_output_layers, output_layer_names


def test_what_was_noted_comes_before_what_a_users_module_calls_so() -> None:
    class Ours(nn.Module):
        output_layers = ("head",)

    assert output_layer_names(Ours()) == ("head",)
    assert output_layer_names(nn.Identity()) == Backbone.output_layers == ()
    theirs = nn.ModuleDict({"output_layers": nn.Linear(2, 2)})
    mark_output_layers(theirs, ("output_layers",))
    assert output_layer_names(copy.deepcopy(theirs)) == ("output_layers",)
    assert isinstance(theirs.output_layers, nn.Linear)
    mark_output_layers(theirs, ())
    assert output_layer_names(theirs) == ()
