"""A chart as a file, or as what a page needs to draw it without a network: vl-convert runs Vega, and has its script.

vl-convert comes with the extra `charts`.
"""

from __future__ import annotations

import functools
import json
from typing import TYPE_CHECKING

from coreml_prune_bench.core.errors import BenchError
from coreml_prune_bench.core.extras import extras_named

if TYPE_CHECKING:
    import altair as alt

_PIXELS_A_UNIT = 2


@extras_named()
def refuse_undrawn() -> None:
    """Raise BenchError, which names the extra, where `charts` is not installed."""
    import altair  # noqa: F401
    import vl_convert  # noqa: F401


def can_draw() -> bool:
    """Whether the extra `charts` is installed."""
    try:
        refuse_undrawn()
    except BenchError:
        return False
    return True


@extras_named()
def svg(chart: alt.TopLevelMixin) -> str:
    """An <svg> element, which needs no other file."""
    import vl_convert

    return vl_convert.vegalite_to_svg(_specification(chart))


@extras_named()
def png(chart: alt.TopLevelMixin) -> bytes:
    """A picture of two pixels a unit."""
    import vl_convert

    return vl_convert.vegalite_to_png(_specification(chart), scale=_PIXELS_A_UNIT)


def specification(chart: alt.TopLevelMixin) -> str:
    """The chart in Vega-Lite's JSON, to stand in a <script> of HTML."""
    written = json.dumps(_specification(chart), sort_keys=True, separators=(",", ":"))
    return written.replace("<", "\\u003c")


@functools.cache
@extras_named()
def vega() -> str:
    """The script that draws: Vega, Vega-Lite and Vega-Embed as `vegaEmbed`, about 0.9 MB."""
    import vl_convert

    return vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;").replace("</script", "<\\/script")


def _specification(chart: alt.TopLevelMixin) -> dict[str, object]:
    return chart.to_dict()
