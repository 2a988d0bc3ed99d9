"""The spec of a user's own base network, given as `package.module:function`."""

from scalesearch.errors import ConfigError
from scalesearch.networks.loading import is_module, returned_by
from scalesearch.networks.validity import check_spec
from scalesearch.values.network_spec import NetworkSpec


def load_spec(reference: str) -> NetworkSpec:
    """Return the spec that the named function returns, or one whose `origin` is the function if it returns a module.

    Raises:
        ConfigError: As `returned_by`, or the function returns neither a spec that can be built nor a torch module that
            can be searched.
    """
    returned = returned_by(reference)
    if is_module(returned):
        from scalesearch.networks.own_module import spec_of

        return spec_of(returned, reference)
    if not isinstance(returned, NetworkSpec):
        message = (
            f"network {reference!r}: expected a scalesearch NetworkSpec or a torch.nn.Module, "
            f"got {type(returned).__name__}"
        )
        raise ConfigError(message)
    check_spec(returned)
    return returned
