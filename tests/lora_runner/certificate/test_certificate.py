"""Certificates as data: written and read, foreign files refused, ways chosen, kept in the cache."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from lora_runner.certificate import command
from lora_runner.certificate.cache import cached_certificate, cached_path, certificate_for
from lora_runner.certificate.certificate import KINDS, PROCESS, Certificate, Check, choose
from lora_runner.certificate.certify import dtype_name
from lora_runner.certificate.device_facts import DeviceFacts
from lora_runner.certificate.model_sizes import LLAMA_8B, ModelSizes
from lora_runner.certificate.table import table
from lora_runner.errors import CertificateError
from tests.lora_runner.certificate.made import CPU, TINY, certificate, check, hopper

F32 = torch.float32


def test_a_certificate_is_read_as_it_was_written(tmp_path: Path) -> None:
    made = certificate(check("products", "grouped", "1 of 8 elements differ"), device=hopper())
    path = made.write(tmp_path / "folder" / "certificate.json")
    assert Certificate.read(path) == made
    assert Certificate.from_dict(json.loads(json.dumps(made.to_dict()))) == made


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "is not a JSON file"),
        ("[1]", "is not a certificate of qlora-sweeps"),
        ('{"device": {}}', "is not a certificate of qlora-sweeps"),
        ('{"format": 1}', "has format 1, this version reads format 2; make it again with `sweeps certify`"),
        ('{"format": 2, "device": {}}', "is damaged: KeyError"),
    ],
)
def test_what_is_no_certificate_is_refused(tmp_path: Path, content: str, said: str) -> None:
    path = tmp_path / "certificate.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(CertificateError, match=r"certificate\.json") as caught:
        Certificate.read(path)
    assert said in str(caught.value)


def test_a_field_too_much_is_refused() -> None:
    values: dict[str, Any] = certificate().to_dict()
    values["checks"][0]["colour"] = "blue"
    with pytest.raises(CertificateError, match="is damaged: TypeError"):
        Certificate.from_dict(values)


def test_the_fastest_invariant_way_of_each_kind_is_chosen_with_its_reason() -> None:
    checks = [
        check("products", "cublas", "3 of 8 elements differ", milliseconds=0.1),
        check("products", "triton", milliseconds=2.0),
        check("products", "grouped", milliseconds=3.0),
        check("attention", "efficient"),
        check("norms", "liger", "NaN"),
        check("norms", "transformers", "NaN"),
    ]
    found = {choice.kind: choice for choice in choose(checks)}
    assert found["products"].way == "triton"
    assert found["products"].reason == (
        "invariant, and 1.50 times as fast as grouped; cublas is not invariant"
    )
    assert (found["attention"].way, found["attention"].reason) == ("efficient", "the only way")
    assert (found["norms"].way, found["norms"].reason) == (None, "liger and transformers are not invariant")
    assert set(found) == {"products", "attention", "norms"}


def test_one_case_that_differs_is_enough_for_a_way_to_fail() -> None:
    made = certificate(
        check("products", "triton"),
        check("products", "triton", "5 of 8 elements differ"),
        check("norms", "triton"),
    )
    assert made.way_of("products") is None
    assert not made.is_good
    said = "frozen products by triton: not invariant on this machine, forward 8 to 8: 5 of 8 elements differ"
    assert made.failure("products", "triton") == said
    assert made.failures() == [said]
    assert made.failure("norms", "triton") is None
    assert made.failure("norms", "liger") == "norms by liger: not checked on this machine"
    lines = list(table(made))
    assert any(line.split()[:5] == ["products", "triton", "no,", "1", "of"] for line in lines)
    assert any(line.split()[:2] == ["norms", "triton"] and line.endswith("chosen") for line in lines)
    assert lines[-2:] == [said, "no way to compute frozen products is invariant on this machine"]


def test_sizes_of_a_model_and_of_the_same_llama_by_hand(tiny_model: Any) -> None:
    from lora_runner.base.load_model import BaseSpec, meta_model

    model = meta_model(BaseSpec(model=str(tiny_model("llama"))))
    by_hand = ModelSizes.of_llama(
        "a name", hidden=64, intermediate=128, heads=4, key_value_heads=2, vocabulary=256
    )
    assert ModelSizes.of_model(model, "a name") == by_hand
    assert set(LLAMA_8B.linears) == {
        *((4096, 1024), (4096, 4096), (4096, 6144), (4096, 14336), (4096, 28672), (14336, 4096)),
    }


@pytest.mark.parametrize("kind", ["gpt2", "bloom", "opt", "gemma2"])
def test_other_models_have_sizes_too(tiny_model: Any, kind: str) -> None:
    from lora_runner.base.load_model import BaseSpec, meta_model

    sizes = ModelSizes.of_model(meta_model(BaseSpec(model=str(tiny_model(kind)))), kind)
    assert sizes.linears
    assert sizes.head_size == 16
    assert sizes.hidden == 64


# --- the cache ------------------------------------------------------------------------------------


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "qlora-sweeps" / "certificates"


def test_a_certificate_is_made_once_for_a_device_and_its_versions(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def make(device: Any, sizes: ModelSizes, dtype: torch.dtype, **_: Any) -> Certificate:
        calls.append(sizes)
        made = certificate(device=DeviceFacts.of(CPU))
        return replace(made, sizes=sizes, dtype=dtype_name(dtype))

    first = certificate_for(CPU, TINY, F32, make=make)
    assert certificate_for(CPU, TINY, F32, make=make) == first
    assert calls == [TINY]
    assert len(list(cache.glob("*.json"))) == 1
    # The name of a model changes nothing; sizes, versions and the checked code do.
    certificate_for(CPU, replace(TINY, name="the same sizes"), F32, make=make)
    assert len(calls) == 1
    certificate_for(CPU, replace(TINY, hidden=64), F32, make=make)
    assert len(calls) == 2
    certificate_for(CPU, TINY, torch.bfloat16, make=make)
    certificate_for(CPU, TINY, torch.bfloat16, make=make)
    assert len(calls) == 3
    monkeypatch.setattr("lora_runner.certificate.device_facts._version", lambda name: "0.1")
    certificate_for(CPU, TINY, F32, make=make)
    assert len(calls) == 4
    monkeypatch.setattr("lora_runner.certificate.cache.code_digest", lambda: "other code")
    certificate_for(CPU, TINY, F32, make=make)
    assert len(calls) == 5


def test_a_damaged_or_foreign_file_in_the_cache_is_made_again(cache: Path) -> None:
    facts = DeviceFacts.of(CPU)
    path = cached_path(facts, TINY, "float32")
    path.parent.mkdir(parents=True)
    path.write_text("{}", encoding="utf-8")
    assert cached_certificate(facts, TINY, F32) is None
    certificate(device=hopper()).write(path)
    assert cached_certificate(facts, TINY, F32) is None
    made = certificate_for(CPU, TINY, F32, make=lambda *_, **__: certificate())
    assert cached_certificate(facts, TINY, F32) == made


@pytest.mark.parametrize(
    "failed",
    [
        check("norms", "triton", "raised OutOfMemoryError: CUDA out of memory"),
        replace(check("norms", "triton", "the process that computed it ended with code -6"), case=PROCESS),
    ],
)
def test_what_failed_for_want_of_memory_or_of_a_process_is_checked_again(cache: Path, failed: Check) -> None:
    assert not certificate_for(CPU, TINY, F32, make=lambda *_, **__: certificate(failed)).is_good
    assert certificate_for(CPU, TINY, F32, make=lambda *_, **__: certificate()).is_good


def test_a_cache_that_cannot_be_written_is_not_used(cache: Path) -> None:
    cache.parent.write_text("a file", encoding="utf-8")
    assert certificate_for(CPU, TINY, F32, make=lambda *_, **__: certificate()).is_good


def test_a_certificate_is_kept_before_it_is_printed(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def say(line: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "certify", lambda *_, **__: certificate())
    with pytest.raises(KeyboardInterrupt):
        command.certify_and_print(None, device="cpu", say=say)
    assert cached_certificate(DeviceFacts.of(CPU), TINY, F32) == certificate()


def test_kinds_have_words() -> None:
    assert all(KINDS.values())


def test_a_table_fits_a_terminal_whatever_the_speeds() -> None:
    fast, slow = (
        replace(check("products", "triton whole tiles"), speed=speed, unit="TFLOP/s", case=f"forward {speed}")
        for speed in (123456.7, 1.5e-7)
    )
    lines = list(table(certificate(fast, slow, check("products", "grouped", milliseconds=3.0))))
    row = next(line for line in lines if "whole tiles" in line)
    assert "  < 0.01 to 123,457 TFLOP/s  " in row
    header = next(line for line in lines if line.startswith("kind"))
    assert row.index("chosen") == header.index("chosen")
