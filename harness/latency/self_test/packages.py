"""The networks that the checks predict with: made with coremltools' builder, from a seed, without torch."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

SIZE, CHANNELS = 64, 32
SINCE_MACOS_15 = ("stateful", "palettized")
"""Of operation sets that earlier ones do not load."""

LAYERS = {"light": 2, "heavy": 20}
CLASSES: dict[str, list[Any]] = {"labels": ["cat", "dog", "owl"], "numbers": [3, 5, 8]}


def make(folder: Path) -> list[str]:
    """Write all of them into a folder; returns their names. Those that are there already are kept."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, build in _BUILDERS.items():
        to = folder / f"{name}.mlpackage"
        if not to.exists():
            part = folder / f"{name}.part.mlpackage"
            build().save(str(part))
            part.rename(to)
    return list(_BUILDERS)


def _convert(program: Any, **options: Any) -> Any:
    import coremltools as ct

    target = options.pop("minimum_deployment_target", ct.target.iOS16)
    return ct.convert(
        program,
        convert_to="mlprogram",
        minimum_deployment_target=target,
        compute_units=ct.ComputeUnit.ALL,
        skip_model_load=True,
        **options,
    )


def _program(inputs: list[Any], target: Any) -> Callable[[Callable[..., Any]], Any]:
    """coremltools' decorator, which has no types."""
    from coremltools.converters.mil import Builder as mb

    made: Callable[[Callable[..., Any]], Any] = mb.program(input_specs=inputs, opset_version=target)
    return made


def _draw() -> np.random.Generator:
    return np.random.default_rng(0)


def _small() -> Any:
    """[1, 8] float32 -> y, three numbers in Float32."""
    import coremltools as ct
    from coremltools.converters.mil import Builder as mb

    weight = _draw().standard_normal((3, 8)).astype(np.float32)

    @_program([mb.TensorSpec((1, 8))], ct.target.iOS16)
    def program(x: Any) -> Any:
        return mb.linear(x=x, weight=weight, name="y")

    return _convert(program)


def _results() -> Any:
    """[1, 8] -> half, single and whole: Float16, Float32 and Int32."""
    import coremltools as ct
    from coremltools.converters.mil import Builder as mb

    @_program([mb.TensorSpec((1, 8))], ct.target.iOS16)
    def program(x: Any) -> Any:
        half = mb.cast(x=mb.mul(x=x, y=2.0), dtype="fp16", name="half")
        return half, mb.mul(x=x, y=3.0, name="single"), mb.cast(x=x, dtype="int32", name="whole")

    return _convert(program)


def _image(color: str) -> Any:
    import coremltools as ct
    from coremltools.converters.mil import Builder as mb

    channels = 3 if color == "RGB" else 1

    @_program([mb.TensorSpec((1, channels, 16, 16))], ct.target.iOS16)
    def program(image: Any) -> Any:
        return mb.mul(x=image, y=0.5, name="picture")

    layout = ct.colorlayout.RGB if color == "RGB" else ct.colorlayout.GRAYSCALE
    made = _convert(program, inputs=[ct.ImageType(name="image", shape=(1, channels, 16, 16), color_layout=layout)])
    spec = made.get_spec()  # the builder's programs declare arrays
    kinds = spec.description.output[0].type.imageType
    kinds.width = kinds.height = 16
    kinds.colorSpace = kinds.ColorSpace.Value("RGB" if color == "RGB" else "GRAYSCALE")
    return ct.models.MLModel(spec, weights_dir=made.weights_dir, skip_model_load=True)


def _classifier(classes: str) -> Any:
    import coremltools as ct
    from coremltools.converters.mil import Builder as mb

    weight = _draw().standard_normal((3, 8)).astype(np.float32)

    @_program([mb.TensorSpec((1, 8))], ct.target.iOS16)
    def program(x: Any) -> Any:
        return mb.softmax(x=mb.linear(x=x, weight=weight), axis=-1, name="scores")

    return _convert(program, classifier_config=ct.ClassifierConfig(CLASSES[classes]))


def _stateful() -> Any:
    """x is added to the state `sum`, which is the result."""
    import coremltools as ct
    from coremltools.converters.mil import Builder as mb
    from coremltools.converters.mil.mil import types

    @_program(
        [mb.TensorSpec((1, 8), dtype=types.fp16), mb.StateTensorSpec((1, 8), dtype=types.fp16)],
        ct.target.iOS18,
    )
    def program(x: Any, sum: Any) -> Any:
        added = mb.add(x=mb.read_state(input=sum), y=x)
        return mb.identity(x=mb.coreml_update_state(state=sum, value=added), name="y")

    return _convert(program, minimum_deployment_target=ct.target.iOS18)


def _network(layers: int, version: str = "iOS16") -> Any:
    """Convolutions over [1, 3, 64, 64], a global mean and ten scores."""
    import coremltools as ct
    from coremltools.converters.mil import Builder as mb

    draw = _draw()

    def weights(*shape: int) -> np.ndarray:
        return (draw.standard_normal(shape) * np.sqrt(2 / np.prod(shape[1:]))).astype(np.float32)

    @_program([mb.TensorSpec((1, 3, SIZE, SIZE))], ct.target[version])
    def program(image: Any) -> Any:
        x = image
        for number in range(layers):
            weight = weights(CHANNELS, 3 if number == 0 else CHANNELS, 3, 3)
            x = mb.relu(x=mb.conv(x=x, weight=weight, pad_type="same"))
        x = mb.reduce_mean(x=x, axes=[2, 3])
        return mb.linear(x=x, weight=weights(10, CHANNELS), name="scores")

    return _convert(
        program,
        inputs=[ct.TensorType(name="image", shape=(1, 3, SIZE, SIZE))],
        minimum_deployment_target=ct.target[version],
    )


def _sparse(palettized: bool = False) -> Any:
    import coremltools.optimize.coreml as cto

    pruner = cto.OpMagnitudePrunerConfig(target_sparsity=0.75, weight_threshold=1)
    made = cto.prune_weights(
        _network(LAYERS["light"], "iOS18" if palettized else "iOS16"), cto.OptimizationConfig(global_config=pruner)
    )
    if not palettized:
        return made
    palette = cto.OpPalettizerConfig(mode="uniform", nbits=4, weight_threshold=1)
    return cto.palettize_weights(made, cto.OptimizationConfig(global_config=palette), joint_compression=True)


_BUILDERS: dict[str, Callable[[], Any]] = {
    "small": _small,
    "results": _results,
    "picture": lambda: _image("RGB"),
    "gray": lambda: _image("L"),
    "labels": lambda: _classifier("labels"),
    "numbers": lambda: _classifier("numbers"),
    "stateful": _stateful,
    "light": lambda: _network(LAYERS["light"]),
    "heavy": lambda: _network(LAYERS["heavy"]),
    "sparse": _sparse,
    "palettized": lambda: _sparse(palettized=True),
}
