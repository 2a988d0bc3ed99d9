"""Replace a layer of a torch module under every name by which the module has registered it."""

from torch import nn


def replace_layer_everywhere(module: nn.Module, name: str, new: nn.Module) -> None:
    """Replace the layer of that name, in place, under its other names too.

    A user's own module may register one layer twice (`self.fc = net.fc` beside `self.body = net`) and run it by either
    name. torch lists such a layer under the first of its names only.
    """
    old = module.get_submodule(name)
    for each in [each for each, layer in module.named_modules(remove_duplicate=False) if layer is old]:
        module.set_submodule(each, new)
