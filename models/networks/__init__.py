"""The networks that ship, a file each. Importing this package registers every file in it."""

from importlib import import_module
from pkgutil import iter_modules

from coreml_prune_bench.models.registry import registered_networks

__all__ = ["registered_networks"]

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")
