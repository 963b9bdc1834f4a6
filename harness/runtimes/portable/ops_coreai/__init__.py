"""The operations of Core AI's programs, a module for each group. Importing this package registers what each translates.

Their names begin with `coreai.`, so that none is an ML program's operation of the same name and another meaning; what
means the same is told as that (`alike.py`).

Definitions: the docstrings of `coreai._compiler.dialects._coreai_ops_gen` in coreai-core 1.0.0b3.
"""

from importlib import import_module
from pkgutil import iter_modules

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")
