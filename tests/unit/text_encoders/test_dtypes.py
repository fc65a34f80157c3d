"""`dtype="auto"`: bfloat16 where a processor has instructions for it, and an index that opens on any machine."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import late_interaction
from late_interaction import ColBERTModel, ModelError, SyncPipeline, fit_projection
from late_interaction.encoders import torch_runtime
from tests.unit.text_encoders.models import BUILDERS, TEXTS

RUNTIME = "late_interaction.encoders.torch_runtime"


@pytest.fixture
def on(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that says whether the processor has instructions for bfloat16."""

    def tell(has: bool) -> None:
        monkeypatch.setattr(f"{RUNTIME}.computes_bfloat16", lambda: has)

    return tell


def dtypes_of(model: Any) -> set[str]:
    return {str(part.dtype).removeprefix("torch.") for part in model._encoder.parameters()}


@pytest.mark.slow
@pytest.mark.parametrize("family", BUILDERS)
def test_auto_takes_bfloat16_where_the_processor_has_it(
    folders: dict[str, Path],
    models: dict[str, ColBERTModel],
    on: Any,
    family: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    on(True)
    with caplog.at_level(logging.INFO, "late_interaction"):
        model = ColBERTModel(folders[family], device="cpu")
    assert any("computes in bfloat16" in record.getMessage() for record in caplog.records)
    assert dtypes_of(model) == {model.dtype} == {"bfloat16"}
    assert dict(model.fingerprint) == {**models[family].fingerprint, "dtype": "bfloat16"}
    given = ColBERTModel(folders[family], device="cpu", dtype="bfloat16")
    for ours, same in zip(model.encode_documents(TEXTS), given.encode_documents(TEXTS), strict=True):
        assert ours.dtype == np.float32
        np.testing.assert_array_equal(ours, same)
    on(False)
    assert ColBERTModel(folders[family], device="cpu").dtype == "float32"


@pytest.mark.slow
def test_trained_vectors_move_less_than_int8_moves_them(minilm: ColBERTModel) -> None:
    half = ColBERTModel(minilm.model_name, device="cpu", dtype="bfloat16")
    texts = ["The tide comes in at noon.", "heat transfer in a boundary layer, at high speed", "pie"]
    for ours, exact in zip(half.encode_documents(texts), minilm.encode_documents(texts), strict=True):
        assert (ours * exact).sum(axis=1).min() > 1 - 0.0021


@pytest.mark.parametrize("given", [None, "auto", "float32"])
def test_a_dtype_that_is_given_is_used(folders: dict[str, Path], on: Any, given: str | None) -> None:
    on(True)
    model = ColBERTModel(folders["stanford"], device="cpu", dtype=given)
    assert dtypes_of(model) == {"float32" if given == "float32" else "bfloat16"}


CASES: dict[str, tuple[bool, Mapping[str, Any], bool, Mapping[str, Any], str]] = {
    # the processor and options that built the index, those that open it, and what is computed in then
    "an older index, a newer processor": (False, {}, True, {}, "float32"),
    "an older processor": (True, {}, False, {}, "float32"),
    "the same": (True, {}, True, {}, "bfloat16"),
    "built on a GPU": (False, {"dtype": "float16"}, True, {}, "float32"),
    "given, and another": (True, {}, True, {"dtype": "float32"}, "float32"),
    "given, and another still": (False, {}, False, {"dtype": "bfloat16"}, "bfloat16"),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_an_index_opens_on_any_processor(
    folders: dict[str, Path], on: Any, tmp_path: Path, case: str
) -> None:
    built, options, opened, other, computes = CASES[case]
    on(built)
    builder = ColBERTModel(folders["stanford"], device="cpu", **options)
    with SyncPipeline(tmp_path / "index", builder) as index:
        index.index_documents([{"content": text} for text in TEXTS])
    on(opened)
    model = ColBERTModel(folders["stanford"], device="cpu", **other)
    with SyncPipeline(tmp_path / "index", model) as index:
        index.index_documents([{"content": "the end of the file"}])
        assert index.search(TEXTS[1], k=1)[0].content == TEXTS[1]
        assert dtypes_of(index.model) == {computes}
        assert index.model.fingerprint == builder.fingerprint


def test_the_float32_of_an_older_index_is_the_checkpoints_own(
    folders: dict[str, Path], models: dict[str, ColBERTModel], on: Any
) -> None:
    on(True)
    model = ColBERTModel(folders["pylate"], device="cpu")
    whole = model.as_built(models["pylate"].fingerprint)
    np.testing.assert_array_equal(
        whole.encode_documents(TEXTS)[1], models["pylate"].encode_documents(TEXTS)[1]
    )
    # It is loaded once, however many indexes ask for it.
    assert whole._encoder is model.as_built(models["pylate"].fingerprint)._encoder
    other = {**models["pylate"].fingerprint, "content": "sha256:of another"}
    assert model.as_built(other).fingerprint["dtype"] == "bfloat16"


@pytest.mark.slow
def test_open_loads_the_model_in_the_indexs_dtype(folders: dict[str, Path], on: Any, tmp_path: Path) -> None:
    with SyncPipeline(tmp_path / "index", ColBERTModel(folders["stanford"], device="cpu")) as index:
        index.index_documents([{"content": text} for text in TEXTS])
    on(True)
    with late_interaction.open(tmp_path / "index", model=folders["stanford"], device="cpu") as index:
        assert index.model.dtype == "float32"
        assert index.search(TEXTS[0], k=1)[0].content == TEXTS[0]


@pytest.mark.slow
def test_a_projection_opens_in_another_dtype(folders: dict[str, Path], on: Any, tmp_path: Path) -> None:
    model = fit_projection(ColBERTModel(folders["plain"], device="cpu"), TEXTS, dim=4)
    with SyncPipeline(tmp_path / "index", model) as index:
        index.index_documents([{"content": text} for text in TEXTS])
    model.save(tmp_path / "map.safetensors")
    on(True)
    with SyncPipeline(tmp_path / "index", ColBERTModel(folders["plain"], device="cpu")) as index:
        assert index.search(TEXTS[0], k=1)[0].content == TEXTS[0]
    type(model).load(tmp_path / "map.safetensors", ColBERTModel(folders["plain"], device="cpu"))


AMD, INTEL = "AuthenticAMD", "GenuineIntel"


@pytest.mark.parametrize(
    ("vendor", "flags", "fast"),
    [
        (AMD, "fpu avx512f avx512_bf16", True),
        (INTEL, "fpu avx512f avx512_bf16", False),  # as in a virtual machine that hides AMX
        (INTEL, "fpu avx512f avx512_bf16 amx_bf16 amx_tile", True),
        (AMD, "fpu avx512f avx2", False),
        (None, None, False),
    ],
)
def test_a_processor_is_asked_for_its_instructions(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, vendor: str | None, flags: str | None, fast: bool
) -> None:
    import torch

    monkeypatch.undo()
    for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.delattr(torch.cpu, name, raising=False)
    cpuinfo = tmp_path / "cpuinfo"
    if flags is not None:
        core = f"vendor_id\t: {vendor}\nflags\t\t: {flags}\n"
        cpuinfo.write_text(f"processor\t: 0\n{core}\nprocessor\t: 1\n{core}")
    monkeypatch.setattr(torch_runtime, "_CPUINFO", cpuinfo)
    monkeypatch.setattr(torch_runtime.platform, "processor", lambda: "Intel64 Family 6, GenuineIntel")
    assert COMPUTES_BFLOAT16() is fast
    # What torch says counts too, such as on Windows.
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True, raising=False)
    assert COMPUTES_BFLOAT16() is (fast or vendor == AMD)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True, raising=False)
    assert COMPUTES_BFLOAT16()
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert not COMPUTES_BFLOAT16()


@pytest.mark.parametrize(
    ("capability", "of_index", "expected"),
    [
        ((8, 0), None, "bfloat16"),
        ((9, 0), "float32", "float32"),
        ((9, 0), "float16", "float16"),
        ((9, 0), "bfloat16", "bfloat16"),
        ((7, 5), None, "float16"),  # Turing, such as a T4
        ((7, 5), "bfloat16", "float16"),
        ((7, 5), "float32", "float32"),
    ],
)
def test_a_gpu_computes_in_half_unless_the_index_does_not(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], of_index: str | None, expected: str
) -> None:
    import torch

    monkeypatch.setattr(torch.version, "hip", None)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert torch_runtime.computing_dtype("cuda:1", of_index) == expected
    assert torch_runtime.computing_dtype("mps", of_index) == "auto"
    monkeypatch.setattr(torch.version, "hip", "6.4")  # AMD's
    assert torch_runtime.gpu_computes_bfloat16("cuda")


def test_vectors_that_are_not_finite_are_refused(text_model: Path) -> None:
    model = ColBERTModel(text_model, device="cpu", dtype="float16")
    next(model._encoder[1].parameters()).data.fill_(float("inf"))
    with pytest.raises(ModelError, match="not finite in float16: load it with dtype='float32'"):
        model.encode_documents(TEXTS)


COMPUTES_BFLOAT16 = torch_runtime.computes_bfloat16
"""As it is when this module is imported, before the tests put another in its place."""
