"""Other precisions: the contract at the ends stays, the bytes repeat, and what agrees too little is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from dualsmooth.export import export_bundle
from dualsmooth.export.checks.agreement import FLOORS, Pictures, agreement, check_floor
from dualsmooth.export.onnx.precision import emulated, to_half, to_int8
from dualsmooth.runtime.bundle.reading import read_bundle
from dualsmooth.runtime.bundle.shipped import SHIPPED_BUNDLE, SHIPPED_IMAGES
from dualsmooth.runtime.engine.onnx_engine import OnnxEngine
from dualsmooth.runtime.errors import BundleError, InputError
from dualsmooth.runtime.graphs.admission import check_model
from dualsmooth.runtime.graphs.model import parse_model

CLASSIFIER = SHIPPED_BUNDLE / "classifier_0.5.onnx"
LEVELS = (0.25, 1.0)
SHAPE = (1, 28, 28)


@pytest.fixture(scope="module")
def model() -> onnx.ModelProto:
    return onnx.load(CLASSIFIER)


@pytest.fixture(scope="module")
def pictures() -> Pictures:
    """The images that ship in the package stand for training images here."""
    with np.load(SHIPPED_IMAGES) as arrays:
        return Pictures.choose("shipped", arrays["x"][:, None], calibrate=24, measure=96)


@pytest.fixture(scope="module")
def int8(model: onnx.ModelProto, pictures: Pictures) -> onnx.ModelProto:
    return to_int8(model, pictures.noisy(LEVELS))


def accepted(model: onnx.ModelProto) -> None:
    """The runtime takes it: float32 at the ends, default operators only."""
    check_model(parse_model(model.SerializeToString(), "a.onnx"), Path("a.onnx"), {}, SHAPE, 10)
    onnx.checker.check_model(model, full_check=True)


def test_int8_is_per_channel_unsigned_by_signed_and_default_domain(int8: onnx.ModelProto) -> None:
    accepted(int8)
    assert {node.domain for node in int8.graph.node} == {""}
    kinds = {t.name: t.data_type for t in int8.graph.initializer}
    zero_points = {kinds[n.input[2]] for n in int8.graph.node if n.op_type == "QuantizeLinear"}
    assert zero_points == {TensorProto.UINT8}
    weights = [t for t in int8.graph.initializer if t.data_type == TensorProto.INT8 and len(t.dims) == 4]
    assert len(weights) == 4  # five convolutions, the first of which stays in float32
    scales = [n.input[1] for n in int8.graph.node if n.op_type == "DequantizeLinear" and n.input[0] == weights[0].name]
    assert numpy_helper.to_array(next(t for t in int8.graph.initializer if t.name == scales[0])).size > 1


def test_int8_agrees_and_its_bytes_repeat(model: onnx.ModelProto, int8: onnx.ModelProto, pictures: Pictures) -> None:
    found = agreement(model, int8, pictures.noisy(LEVELS, held_out=True), "classifier.onnx")
    assert set(found) == set(LEVELS)
    assert min(found.values()) >= FLOORS["int8"]
    assert int8.ByteSize() < model.ByteSize() / 3
    again = to_int8(model, pictures.noisy(LEVELS))
    assert again.SerializeToString(deterministic=True) == int8.SerializeToString(deterministic=True)


def test_quantised_ends_are_smaller(model: onnx.ModelProto, int8: onnx.ModelProto, pictures: Pictures) -> None:
    whole = to_int8(model, pictures.noisy(LEVELS), ends=True)
    accepted(whole)
    count = [sum(t.data_type == TensorProto.INT8 for t in m.graph.initializer) for m in (whole, int8)]
    assert count[0] > count[1]


def test_a_reduced_range_leaves_weights_seven_bits(
    model: onnx.ModelProto, int8: onnx.ModelProto, pictures: Pictures
) -> None:
    """Without int8 dot products, sums of two products of 8 and 8 bits saturate in 16."""
    small = to_int8(model, pictures.noisy(LEVELS), reduce_range=True)
    accepted(small)

    def largest(graph: onnx.ModelProto) -> int:
        weights = [onnx.numpy_helper.to_array(t) for t in graph.graph.initializer if t.data_type == TensorProto.INT8]
        return max(int(np.abs(w.astype(int)).max()) for w in weights)

    assert largest(small) <= 64 < largest(int8)


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_half_precision_keeps_its_ends_and_agrees(model: onnx.ModelProto, pictures: Pictures, precision: str) -> None:
    half = to_half(model, precision)
    accepted(half)
    assert half.ByteSize() < 0.55 * model.ByteSize()
    assert not any(t.data_type == TensorProto.FLOAT for t in half.graph.initializer)
    samples = pictures.noisy(LEVELS, held_out=True)
    found = agreement(model, emulated(model, precision), samples, "a.onnx")
    assert min(found.values()) >= FLOORS[precision]
    if precision == "fp16":
        real = agreement(model, half, samples, "a.onnx")
        assert min(real.values()) >= FLOORS[precision]
        assert to_half(model, precision).SerializeToString() == half.SerializeToString()


def test_a_weight_that_does_not_fit_is_refused(model: onnx.ModelProto) -> None:
    large = onnx.ModelProto()
    large.CopyFrom(model)
    tensor = next(t for t in large.graph.initializer if t.data_type == TensorProto.FLOAT and len(t.dims) == 4)
    tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * np.float32(1e6), tensor.name))
    with pytest.raises(BundleError, match="too large for fp16"):
        to_half(large, "fp16")
    to_half(large, "bf16")


def export(out: Path, **settings: object) -> None:
    shipped = read_bundle(SHIPPED_BUNDLE)
    export_bundle(
        out, estimator=SHIPPED_BUNDLE / "estimator.onnx", classifiers=[CLASSIFIER] * 3, sigmas=shipped.sigmas,
        sigma_e=shipped.sigma_e, classes=shipped.classes, input_shape=SHAPE, **settings,  # type: ignore[arg-type]
    )  # fmt: skip


def test_a_bundle_says_how_it_was_measured(tmp_path: Path, pictures: Pictures) -> None:
    export(tmp_path / "b", precision="int8", pictures=pictures)
    bundle = read_bundle(tmp_path / "b")
    report = bundle.provenance["precision"]
    assert bundle.precision == "int8"
    assert set(report["agreement"]["classifier.onnx"]) == {"0.25", "0.5", "1"}
    assert set(report["agreement"]["estimator.onnx"]) == {"1"}
    assert report["calibrated_on"] == len(pictures.calibration)
    assert report["images"] == "shipped"
    assert report["floor"] == FLOORS["int8"]
    batch = pictures.noisy([0.25])[0][0]
    assert OnnxEngine(bundle).votes(bundle.estimator, batch, 1.0, 3).shape == (len(batch),)


def test_below_the_floor_nothing_is_exported_unless_forced(tmp_path: Path, pictures: Pictures) -> None:
    with pytest.raises(BundleError, match=r"less than the floor of 100\.0%; calibrate"):
        export(tmp_path / "b", precision="int8", pictures=pictures, floor=1.0, quantise_ends=True)
    assert list(tmp_path.iterdir()) == []
    export(tmp_path / "b", precision="int8", pictures=pictures, floor=1.0, quantise_ends=True, force=True)
    assert read_bundle(tmp_path / "b").provenance["precision"]["forced"] is True


def test_calibration_on_other_noise_is_noticed(model: onnx.ModelProto, pictures: Pictures) -> None:
    """Calibrated on clean images, the network sees noise beyond its ranges: what calibrating on noise avoids."""
    clean = to_int8(model, pictures.noisy([1e-3]), ends=True)
    noisy = to_int8(model, pictures.noisy([1.0]), ends=True)
    samples = pictures.noisy([1.0], held_out=True)
    found = [agreement(model, other, samples, "a.onnx")[1.0] for other in (clean, noisy)]
    assert found[0] < min(found[1], FLOORS["int8"])
    with pytest.raises(BundleError, match="floor"):
        check_floor({"a.onnx": {1.0: found[0]}}, FLOORS["int8"], force=False)


def test_bad_arguments(tmp_path: Path, pictures: Pictures) -> None:
    for settings, message in (
        ({"precision": "int8"}, "needs images to calibrate on"),
        ({"precision": "fp8"}, "is unknown"),
        ({"precision": "int8", "pictures": pictures, "floor": 1.5}, "floor is 1.5"),
        ({"precision": "int8", "pictures": Pictures.random((3, 4, 4))}, "holds images"),
    ):
        with pytest.raises(InputError, match=message):
            export(tmp_path / "b", **settings)
    with pytest.raises(InputError, match="expected 2 or more"):
        Pictures.choose("one", np.zeros((1, 1, 28, 28), np.uint8))
    with pytest.raises(InputError, match="outside of"):
        Pictures.choose("wide", np.full((4, 1, 28, 28), 3, np.float32))


def test_pictures_for_measuring_are_others() -> None:
    images = np.arange(40, dtype=np.uint8).reshape(40, 1, 1, 1)
    chosen = Pictures.choose("n", images, calibrate=10, measure=20)
    assert not set(chosen.calibration.ravel()) & set(chosen.held_out.ravel())
    assert (len(chosen.calibration), len(chosen.held_out)) == (10, 20)
