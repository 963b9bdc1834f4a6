"""The operations of ML programs, a module for each group. Importing this package registers what each one translates."""

from importlib import import_module
from pkgutil import iter_modules

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")
