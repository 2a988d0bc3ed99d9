"""Layers that a torch module has registered under several names.

A user's own module may register one layer twice (`self.fc = net.fc` beside `self.body = net`) and run it by either
name. torch lists such a layer under the first of its names only.
"""

from torch import nn


def replace_layer_everywhere(module: nn.Module, name: str, new: nn.Module) -> None:
    """Replace the layer of that name, in place, under its other names too."""
    old = module.get_submodule(name)
    for each in [each for each, layer in module.named_modules(remove_duplicate=False) if layer is old]:
        module.set_submodule(each, new)


def first_names(module: nn.Module) -> dict[str, str]:
    """Return the name that torch lists of each parameter, by the parameter's other names."""
    listed = {layer: name for name, layer in module.named_modules()}
    return {
        f"{name}.{parameter}": f"{listed[layer]}.{parameter}"
        for name, layer in module.named_modules(remove_duplicate=False)
        if listed[layer] != name
        for parameter, _ in layer.named_parameters(recurse=False)
    }
