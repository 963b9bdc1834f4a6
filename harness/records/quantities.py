"""What numbers in files can be: bounded, so that no sum, mean or conversion of one that was read goes wrong later.

The bounds are wide of anything that is measured; a file beyond them was not written by this project.
"""

from typing import Annotated

from pydantic import Field

Count = Annotated[int, Field(ge=0, le=2**53)]
PositiveCount = Annotated[int, Field(ge=1, le=2**53)]
Bytes = Count
ClassIndex = Annotated[int, Field(ge=0, le=2**31 - 1)]
Nanoseconds = Annotated[int, Field(ge=0, le=10**18)]
"""Up to thirty years."""
Seconds = Annotated[float, Field(ge=0, le=1e9)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Number = Annotated[float, Field(ge=-1e18, le=1e18)]
"""Any other measure."""
