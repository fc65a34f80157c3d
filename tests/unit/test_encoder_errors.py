"""Every error about a checkpoint says what is wrong, where, and what to do: each is provoked here."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from late_interaction import ColBERTModel, ColPaliModel, LateInteractionError, load_model
from late_interaction.encoders.multi_vector import MultiVectorModel
from tests.support import checkpoints, commands

pytestmark = pytest.mark.slow

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:06b9\nsize 19989325\n"
LONGEST = 1000
"""Characters: what is longer is a wall of text."""
AGAIN = "Download it again"
Spoil = Callable[[Path], object]


def merge(file: Path, **values: Any) -> None:
    checkpoints._merge_json(file, values)


def set_json(name: str, **values: Any) -> Spoil:
    return lambda folder: merge(folder / name, **values)


def write(name: str, content: str | bytes) -> Spoil:
    def spoil(folder: Path) -> None:
        (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)

    return spoil


def halve(name: str) -> Spoil:
    def spoil(folder: Path) -> None:
        whole = (folder / name).read_bytes()
        (folder / name).write_bytes(whole[: len(whole) // 2])

    return spoil


def remove(*names: str) -> Spoil:
    def spoil(folder: Path) -> None:
        for name in names:
            if (folder / name).is_dir():
                shutil.rmtree(folder / name)
            else:
                (folder / name).unlink(missing_ok=True)

    return spoil


def weights_as(name: str) -> Spoil:
    def spoil(folder: Path) -> None:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / "model.safetensors").rename(folder / name)

    return spoil


def change_weights(how: Callable[[dict[str, torch.Tensor]], Mapping[str, torch.Tensor]]) -> Spoil:
    def spoil(folder: Path) -> None:
        file = folder / "model.safetensors"
        save_file(dict(how(load_file(file))), file, {"format": "pt"})

    return spoil


def without_a_shard(folder: Path) -> None:
    names = sorted(load_file(folder / "model.safetensors"))
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    files = {name: f"model-0000{1 + (i % 2)}-of-00002.safetensors" for i, name in enumerate(names)}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": files}))


def without_tokens(*names: str) -> Spoil:
    def spoil(folder: Path) -> None:
        file = folder / "tokenizer_config.json"
        settings = json.loads(file.read_text())
        file.write_text(
            json.dumps({k: v for k, v in settings.items() if k.removesuffix("_token") not in names})
        )
        (folder / "special_tokens_map.json").unlink(missing_ok=True)

    return spoil


def modules(*entries: tuple[str, str]) -> Spoil:
    listed = [{"idx": i, "name": str(i), "path": p, "type": t} for i, (p, t) in enumerate(entries)]
    return write("modules.json", json.dumps(listed))


def narrow_dense(folder: Path) -> None:
    merge(folder / "1_Dense" / "config.json", in_features=24)
    save_file({"linear.weight": torch.ones(16, 24)}, folder / "1_Dense" / "model.safetensors")


def both(*spoils: Spoil) -> Spoil:
    return lambda folder: [spoil(folder) for spoil in spoils]


STANFORD, PYLATE, PLAIN = (
    checkpoints.stanford_checkpoint,
    checkpoints.pylate_checkpoint,
    checkpoints.plain_checkpoint,
)
TRANSFORMER = ("", "sentence_transformers.models.Transformer")
FOREIGN = "model.safetensors"


def bare(path: Path) -> Path:
    return checkpoints.plain_checkpoint(path, sentence_transformers=False)


def expanding(path: Path) -> Path:
    expansion = {"strategy": "fixed", "length": 12, "attend": False}
    return checkpoints.native_checkpoint(path, query_expansion=expansion)


def without_mask(folder: Path) -> None:
    file = folder / "modules.json"
    file.write_text(json.dumps([e for e in json.loads(file.read_text()) if "Mask" not in e["type"]]))


TEXT: dict[str, tuple[Callable[[Path], Path], Spoil, tuple[str, ...]]] = {
    # files that are not whole
    "weights cut off": (STANFORD, halve(FOREIGN), ("model.safetensors is cut off", "bytes", AGAIN)),
    "weights empty": (PLAIN, write(FOREIGN, b""), ("model.safetensors is empty", AGAIN)),
    "weights no safetensors": (
        PLAIN,
        write(FOREIGN, b"\x08" + 7 * b"\0" + b"not json"),
        ("is damaged", AGAIN),
    ),
    "weights a pointer": (PLAIN, write(FOREIGN, POINTER), ("model.safetensors", "Git LFS", "git lfs pull")),
    "a Dense a pointer": (
        PYLATE,
        write(f"1_Dense/{FOREIGN}", POINTER),
        ("1_Dense", "Git LFS", "git lfs pull"),
    ),
    "tokenizer a pointer": (STANFORD, write("tokenizer.json", POINTER), ("tokenizer.json", "git lfs pull")),
    "tokenizer cut off": (STANFORD, halve("tokenizer.json"), ("tokenizer.json cannot be read", AGAIN)),
    "tokenizer missing": (STANFORD, remove("tokenizer.json"), ("no tokenizer files", "Copy them from")),
    "no tokenizer at all": (
        PLAIN,
        remove("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"),
        ("no tokenizer files", "every word would be unknown", "Copy them from"),
    ),
    "shard missing": (PLAIN, without_a_shard, ("index.json names 2", "00002-of-00002.safetensors", AGAIN)),
    "config no JSON": (STANFORD, write("config.json", "{"), ("config.json cannot be read", AGAIN)),
    "config no object": (
        STANFORD,
        write("config.json", "[1]"),
        ("config.json holds a JSON list", "download it again"),
    ),
    "artifact no JSON": (
        STANFORD,
        write("artifact.metadata", "x"),
        ("artifact.metadata cannot be read", AGAIN),
    ),
    "modules no list": (PYLATE, write("modules.json", "{}"), ("modules.json is not a list", AGAIN)),
    "modules no JSON": (PYLATE, write("modules.json", "["), ("modules.json cannot be read", AGAIN)),
    "module without path": (PYLATE, write("modules.json", '[{"idx": 0}]'), ("a type and a path", AGAIN)),
    "a Dense missing": (PYLATE, remove("1_Dense"), ("modules.json names 1_Dense", "not there", AGAIN)),
    "a Dense without config": (
        PYLATE,
        remove("1_Dense/config.json"),
        ("1_Dense", "config.json is not there", AGAIN),
    ),
    "a Dense without weights": (PYLATE, remove(f"1_Dense/{FOREIGN}"), ("1_Dense has no weights", AGAIN)),
    # weights that are elsewhere, or in another format
    "GGUF": (
        PLAIN,
        weights_as("model-Q4_K_M.gguf"),
        ("model-Q4_K_M.gguf", "llama.cpp", "Take the repository"),
    ),
    "ONNX": (PLAIN, weights_as("onnx/model.onnx"), ("onnx/model.onnx", "backend='onnx'")),
    "OpenVINO": (PLAIN, weights_as("openvino_model.xml"), ("openvino_model.xml", "backend='openvino'")),
    "TensorFlow": (PLAIN, weights_as("tf_model.h5"), ("tf_model.h5", "from_tf=True")),
    "Flax": (PLAIN, weights_as("flax_model.msgpack"), ("flax_model.msgpack", "from_flax=True")),
    "Rust": (PLAIN, weights_as("rust_model.rs"), ("rust_model.rs", "Take the repository")),
    "nothing": (PLAIN, remove(FOREIGN), ("has no weights in model.safetensors", AGAIN)),
    "a pickle": (
        PLAIN,
        checkpoints.pickle_weights,
        ("pickle", "late-interaction convert", "allow_pickle=True"),
    ),
    "no projection": (
        STANFORD,
        change_weights(lambda w: {k: v for k, v in w.items() if k != "linear.weight"}),
        ("no linear.weight", "colbert-ai", "Download the trained checkpoint again"),
    ),
    "a layer missing": (
        PLAIN,
        change_weights(lambda w: {k: v for k, v in w.items() if "layer.1.output" not in k}),
        ("lacks weights", "layer.1.output", "would be random", AGAIN),
    ),
    # configs that do not fit
    "unknown model_type": (
        PLAIN,
        set_json("config.json", model_type="newbert9"),
        ("'newbert9'", "transformers does not know", "pip install -U transformers"),
    ),
    "no model_type": (PLAIN, write("config.json", '{"hidden_size": 32}'), ("no model_type", "Add it")),
    "unknown model_type with code": (
        PLAIN,
        set_json("config.json", model_type="newbert9", auto_map={"AutoModel": "m.NewBert"}),
        ("'newbert9'", "auto_map", "trust_remote_code=True"),
    ),
    "another hidden_size": (
        PLAIN,
        set_json("config.json", hidden_size=48),
        ("other shapes", "hidden_size", "same revision"),
    ),
    "a Dense's width": (
        PYLATE,
        set_json("1_Dense/config.json", out_features=24),
        ("other shapes", "out_features"),
    ),
    "a Dense of another model": (PYLATE, narrow_dense, ("takes vectors of 24", "gets 32", "one revision")),
    "an activation of its own": (
        PYLATE,
        set_json("1_Dense/config.json", activation_function="own.Act"),
        ("own.Act of 1_Dense", "trust_remote_code=True"),
    ),
    "a module of its own": (
        PYLATE,
        modules(TRANSFORMER, ("1_Dense", "pylate.models.Dense.Dense"), ("2_Own", "own_module.Turned")),
        ("own_module.Turned in modules.json", "trust_remote_code=True"),
    ),
    "no mask token": (PYLATE, without_tokens("mask"), ("[MASK]", "tokenizer_config.json")),
    "no padding token": (
        PLAIN,
        without_tokens("pad"),
        ("padding token", "pad_token in tokenizer_config.json"),
    ),
    "queries beyond the positions": (
        lambda path: STANFORD(path, query_maxlen=5000),
        lambda folder: None,
        ("5000 tokens", "64 positions", "give query_length="),
    ),
    "documents of one token": (
        lambda path: PYLATE(path, document_length=1),
        lambda folder: None,
        ("has 1 for its document_length", "Give document_length="),
    ),
    "a length that is no number": (
        lambda path: STANFORD(path, doc_maxlen="long"),  # type: ignore[arg-type]
        lambda folder: None,
        ("has 'long' for its document_length", "Give document_length="),
    ),
    # other kinds of models
    "an empty folder": (
        lambda path: path,
        lambda folder: folder.mkdir(),
        ("holds no model", "config.json", "Give the folder"),
    ),
    "a text adapter": (
        lambda path: path,
        both(lambda folder: folder.mkdir(), set_json("adapter_config.json", base_model_name_or_path="BASE")),
        ("is an adapter for", "merge_and_unload"),
    ),
    "a cross-encoder": (
        bare,
        set_json("config.json", architectures=["BertForSequenceClassification"]),
        ("BertForSequenceClassification", "cross-encoder", "late-interaction models"),
    ),
    "a language model": (
        bare,
        set_json("config.json", architectures=["BertLMHeadModel"]),
        ("BertLMHeadModel", "writes text", "late-interaction models"),
    ),
    "a sparse encoder": (
        PLAIN,
        set_json("config_sentence_transformers.json", model_type="SparseEncoder"),
        ("is a SparseEncoder", "late-interaction models"),
    ),
    "static embeddings": (
        PLAIN,
        modules(("", "sentence_transformers.models.StaticEmbedding")),
        ("StaticEmbedding", "no token vectors", "late-interaction models"),
    ),
    # heads that would not be used
    "an artifact without its architecture": (
        STANFORD,
        set_json("config.json", architectures=["BertModel"]),
        ("artifact.metadata", "would not be loaded", "name HF_ColBERT there"),
    ),
    "a head by its name": (
        STANFORD,
        both(set_json("config.json", architectures=["ColBERT"]), remove("artifact.metadata")),
        ("linear.weight", "HF_ColBERT in config.json"),
    ),
    "a head by its name in a module": (
        bare,
        change_weights(lambda w: {**w, "bert.colbert_linear.weight": torch.ones(16, 32)}),
        ("bert.colbert_linear.weight", "HF_ColBERT in config.json"),
    ),
    "a head by its shape": (
        bare,
        change_weights(lambda w: {**w, "token_vectors.weight": torch.ones(16, 32)}),
        ("token_vectors.weight", "HF_ColBERT in config.json"),
    ),
    "a head in a file of its own": (
        bare,
        lambda folder: torch.save({"weight": torch.ones(16, 32)}, folder / "colbert_head.pt"),
        ("colbert_head.pt", "would not be used", "HF_ColBERT in config.json"),
    ),
    "a Dense that nothing names": (
        PLAIN,
        lambda folder: checkpoints._dense(folder / "7_Dense", 0),
        ("7_Dense", "would not be used", "in modules.json"),
    ),
    "a Dense of PyLate that nothing names": (
        PYLATE,
        lambda folder: checkpoints._dense(folder / "2_Dense", 0),
        ("2_Dense", "would not be used", "in modules.json"),
    ),
    "a Dense before the pooling": (
        PLAIN,
        modules(
            TRANSFORMER,
            ("2_Dense", "sentence_transformers.models.Dense"),
            ("1_Pooling", "sentence_transformers.models.Pooling"),
        ),
        ("2_Dense", "would not be used", '"MultiVectorEncoder"'),
    ),
    "no mask module": (
        expanding,
        without_mask,
        ("without its query expansion", "MultiVectorMask into modules.json"),
    ),
}


def told(load: Callable[[], object], *expected: type[Exception]) -> str:
    """Return what an error says, after checking that it is one of ours, and no wall of text."""
    with pytest.raises(expected or (LateInteractionError,)) as caught:
        load()
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < LONGEST
    return message


def said(message: str, words: tuple[str, ...]) -> None:
    for word in words:
        assert word in message


@pytest.mark.parametrize("name", TEXT)
def test_text(name: str, tmp_path: Path) -> None:
    build, spoil, words = TEXT[name]
    folder = build(tmp_path / "model")
    spoil(folder)
    if name == "a text adapter":
        merge(folder / "adapter_config.json", base_model_name_or_path=str(PLAIN(tmp_path / "base")))
    message = told(lambda: load_model(folder, device="cpu"))
    assert str(folder) in message
    said(message, words)


def test_what_is_no_fault_loads(tmp_path: Path) -> None:
    """Heads of pretraining have no place in an encoder, empty folders are not on the hub, and files may lie about."""
    folder = bare(tmp_path / "pretrained")
    change_weights(
        lambda w: {
            **w,
            "cls.predictions.transform.dense.weight": torch.ones(32, 32),
            "cls.seq_relationship.weight": torch.ones(2, 32),
            "classifier.weight": torch.ones(12, 32),
        }
    )(folder)
    assert ColBERTModel(folder, device="cpu").family == "plain"
    plain = PLAIN(tmp_path / "plain")
    entries = json.loads((plain / "modules.json").read_text())
    entries.append(
        {"idx": 3, "name": "3", "path": "3_Normalize", "type": "sentence_transformers.models.Normalize"}
    )
    (plain / "modules.json").write_text(json.dumps(entries))
    (plain / "data_config.json").write_text("[1]")
    (plain / "checkpoint-5").mkdir()
    (plain / "checkpoint-5" / "model.safetensors").touch()
    assert ColBERTModel(plain, device="cpu").family == "plain"


def test_lengths_beyond_the_positions_are_read_up_to_them(tmp_path: Path) -> None:
    folder = PYLATE(tmp_path / "long", document_length=5000)
    model = ColBERTModel(folder, device="cpu")
    assert model.document_length == model.fingerprint["document_length"] == checkpoints.POSITIONS
    assert len(model.encode_documents(["wing heat " * 100])[0]) > checkpoints.POSITIONS
    earlier = {**model.fingerprint, "document_length": 5000}  # As earlier releases kept it.
    assert dict(model.as_built(earlier).fingerprint) == earlier


def test_weights_that_are_not_numbers(tmp_path: Path) -> None:
    folder = PLAIN(tmp_path / "model")
    change_weights(lambda w: {name: tensor * float("nan") for name, tensor in w.items()})(folder)
    for dtype, remedy in (("bfloat16", "dtype='float32'"), ("float32", "download its weights again")):
        model = ColBERTModel(folder, device="cpu", dtype=dtype)
        said(told(lambda model=model: model.encode_documents(["a"])), ("not finite", dtype, remedy))  # type: ignore[misc]


# --- names, devices and other arguments


@pytest.fixture
def out_of_reach(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], None]:
    """A hub with an empty cache, offline by choice or not."""
    from huggingface_hub import constants

    def reach(offline: bool) -> None:
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)

    return reach


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (
            "nobody/nothing",
            (
                "nobody/nothing",
                "HF_HUB_OFFLINE is set",
                "not in the cache",
                "Unset it",
                "hf download nobody/nothing",
            ),
        ),
        ("./nowhere", ("There is no folder ./nowhere", "organisation/name", "late-interaction models")),
        ("/nowhere/at/all", ("There is no folder", "Give the folder of a model")),
        ("a name with spaces", ("no model id", "organisation/name", "late-interaction models")),
    ],
)
def test_names(name: str, words: tuple[str, ...], out_of_reach: Callable[[bool], None]) -> None:
    out_of_reach(True)
    for load in (load_model, ColBERTModel, ColPaliModel, MultiVectorModel):
        said(told(lambda load=load: load(name)), words)  # type: ignore[misc]


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("GatedRepoError", ("gated", "Ask for access on https://huggingface.co/a/b", "hf auth login")),
        ("RepositoryNotFoundError", ("no such model, or it is private", "Check the name", "hf auth login")),
        ("RevisionNotFoundError", ("no such revision", "https://huggingface.co/a/b/tree/main")),
        ("LocalEntryNotFoundError", ("out of reach", "Check the name and the connection", "hf download a/b")),
        ("HfHubHTTPError", ("Server on fire.", "Check the name, the connection", "hf auth login")),
    ],
)
def test_what_the_hub_says(
    kind: str, words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, out_of_reach: Callable[[bool], None]
) -> None:
    import httpx
    from huggingface_hub import errors

    out_of_reach(False)

    def fail(*args: object, **options: object) -> None:
        made = getattr(errors, kind)
        wall = "Server on fire\n" + "a wall of text " * 99
        if issubclass(made, errors.HfHubHTTPError):
            raise made(wall, response=httpx.Response(500, request=httpx.Request("GET", "https://hub")))
        raise made(wall)

    monkeypatch.setattr("huggingface_hub.snapshot_download", fail)
    said(told(lambda: load_model("a/b", revision="v1")), ("a/b at revision 'v1'", *words))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"device": "abacus"}, ("device='abacus'", "give 'cpu'")),
        ({"device": "cuda:77"}, ("device='cuda:77'", "CUDA GPUs on this machine", "give 'cpu'")),
        ({"dtype": "int4"}, ("dtype must be auto or one of", "float32", "'int4'")),
        ({"query_length": 0}, ("query_length=0", "give at least")),
        ({"document_length": 9999}, ("document_length=9999", "at most 64, the positions it has")),
        ({"revision": "v1"}, ("revision='v1' is for models on the hub", "leave it out")),
        ({"language": "fr_XX"}, ("language='fr_XX' is for X-MOD", "leave it out")),
        ({"backend": "onnx", "device": "cuda"}, ("backend='onnx'", "give device='cpu'")),
        ({"backend": "onnx", "dtype": "float16"}, ("dtype is for the torch backend", "leave it out")),
        ({"backend": "tensorrt"}, ("backend must be one of torch, onnx, openvino", "'tensorrt'")),
        ({"long_documents": "skip"}, ("long_documents must be one of windows", "'skip'")),
        ({"batch_tokens": 0}, ("batch_tokens must be at least 1",)),
    ],
)
def test_arguments(options: dict[str, Any], words: tuple[str, ...], tmp_path: Path) -> None:
    folder = STANFORD(tmp_path / "model")
    given = {"device": "cpu", **options}
    said(told(lambda: ColBERTModel(folder, **given), LateInteractionError, ValueError), words)


@pytest.mark.parametrize(
    ("items", "words"),
    [
        ("a text", ("Pass a list", "not a bare str")),
        ([7], ("position 0 is not a str but int", "str(")),
        ([" "], ("position 0 is empty", "leave it out")),
        (["a", "\ud800"], ("position 1 is not valid Unicode", "surrogate", "errors='replace'")),
        (["[MASK]"], ("position 0, '[MASK]', has no token", "leave it out")),
    ],
)
def test_items(items: Any, words: tuple[str, ...], tmp_path: Path) -> None:
    model = ColBERTModel(PLAIN(tmp_path / "model"), device="cpu")
    said(told(lambda: model.encode_documents(items), TypeError, ValueError), words)


def test_a_document_that_is_too_long(tmp_path: Path) -> None:
    model = ColBERTModel(STANFORD(tmp_path / "model"), device="cpu", long_documents="error")
    message = told(lambda: model.encode_documents(["wing " * 99]), ValueError)
    said(message, ("position 0", "reads 24 at once", "cut it into passages", "long_documents='windows'"))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (POINTER.encode(), ("pytorch_model.bin", "Git LFS", "git lfs pull")),
        (b"no pickle", ("pytorch_model.bin cannot be read as tensors", "Download it again", "safetensors")),
        ({"state_dict": {"weight": torch.ones(1)}}, ("more than tensors", "state_dict() alone")),
    ],
)
def test_pickles(content: Any, words: tuple[str, ...], tmp_path: Path) -> None:
    folder = STANFORD(tmp_path / "model")
    (folder / FOREIGN).unlink()
    if isinstance(content, bytes):
        (folder / "pytorch_model.bin").write_bytes(content)
    else:
        torch.save(content, folder / "pytorch_model.bin")
    said(told(lambda: ColBERTModel(folder, device="cpu", allow_pickle=True)), words)
    result = commands.run("convert", folder, tmp_path / "out", columns=2000)
    assert result.exit_code == 1
    said(" ".join(result.stderr.split()), words)


def test_a_shard_of_a_pickle_that_is_missing(tmp_path: Path) -> None:
    folder = PLAIN(tmp_path / "model")
    weights = load_file(folder / FOREIGN)
    (folder / FOREIGN).unlink()
    torch.save(weights, folder / "pytorch_model-00001-of-00002.bin")
    shards = dict.fromkeys(weights, "pytorch_model-00002-of-00002.bin")
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": shards}))
    message = told(lambda: ColBERTModel(folder, device="cpu", allow_pickle=True))
    said(message, ("pytorch_model-00002-of-00002.bin, which is not there", "download the model again"))


def test_check_tells_what_the_configs_show(tmp_path: Path) -> None:
    """Before weights are downloaded."""
    for name in ("unknown model_type", "tokenizer missing", "a cross-encoder", "a Dense that nothing names"):
        build, spoil, _ = TEXT[name]
        folder = build(tmp_path / name)
        spoil(folder)
        result = commands.run("models", "--check", folder, "--json")
        assert result.exit_code == 1
        assert json.loads(result.stdout)["problem"]
    plan = json.loads(commands.run("models", "--check", PLAIN(tmp_path / "plain"), "--json").stdout)
    assert "no late-interaction head" in plan["why"]
