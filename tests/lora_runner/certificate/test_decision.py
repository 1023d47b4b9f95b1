"""What a certificate decides: a way that fails is not taken, and the run is told."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch

from lora_runner.certificate import decision as decisions
from lora_runner.certificate.certificate import KINDS, Certificate, Check
from lora_runner.certificate.checks.check_ways import check_way
from lora_runner.certificate.decision import FUSED_KINDS, Decision, decide, decide_here, set_up_cublas
from lora_runner.certificate.table import table
from lora_runner.certificate.ways import products
from lora_runner.certificate.ways.registry import Way
from lora_runner.fused.compute_path import ComputePath, Machine
from tests.lora_runner.certificate.made import CPU, TINY, certificate, check, hopper

BF16 = torch.bfloat16


def good(*more: Check) -> Certificate:
    """All of the fused path's kernels invariant, the general path's too, and `more`."""
    kinds = [check(kind, "triton") for kind in ("products", *FUSED_KINDS)]
    return certificate(*kinds, check("products", "grouped", milliseconds=9.0), *more, device=hopper())


def never(way: str) -> str | None:
    raise AssertionError(f"{way} needs no settings")


def test_where_all_kernels_are_invariant_the_fused_path_may_be_taken() -> None:
    made = good()
    assert decide(made, never) == Decision(
        certificate=made, product="triton", product_name="triton", kernel="triton"
    )


@pytest.mark.parametrize("kind", FUSED_KINDS)
def test_one_kernel_that_fails_means_the_general_path_and_a_note(kind: str) -> None:
    found = decide(good(check(kind, "triton", "4 of 8 elements differ")), never)
    said = f"{KINDS[kind]} by triton: not invariant on this machine, forward 8 to 8: 4 of 8 elements differ"
    assert found.refusal == said
    assert f"the fused path is not taken: {said}" in found.notes
    # The general path still multiplies all rows at once, where that is invariant.
    assert found.product == "triton"


def test_a_kernel_that_was_not_checked_is_not_taken() -> None:
    made = certificate(check("products", "triton"), check("norms", "triton"))
    assert decide(made, never).refusal == "LoRA adapters by triton: not checked on this machine"


def test_the_fastest_product_is_taken_once_it_is_confirmed_in_this_process() -> None:
    made = good(
        check("products", "cublas", "9 of 24 elements differ"),
        check("products", "cublas :0:0", milliseconds=0.5),
        check("products", "cublas :16:8", milliseconds=0.6),
    )
    asked: list[str] = []

    def confirm(answer: str | None) -> Any:
        return lambda way: asked.append(way) or answer

    assert (decide(made, confirm(None)).product, asked) == ("cublas", ["cublas :0:0"])
    found = decide(made, confirm("forward 8 to 8: 1 of 8 elements differ"))
    assert (found.product, found.product_name, found.refusal) == ("triton", "triton", None)
    assert found.notes == (
        "frozen products by cublas :0:0 are not taken: forward 8 to 8: 1 of 8 elements differ",
    )
    assert asked == ["cublas :0:0"] * 2, "a second setting cannot be tried in the same process"


def test_tiles_of_one_size_where_halves_of_them_have_other_bits() -> None:
    checks = [check(kind, "triton") for kind in FUSED_KINDS]
    halved, whole = check("products", "triton", "3 of 8 differ"), check("products", "triton whole tiles")
    found = decide(certificate(*checks, halved, whole), never)
    assert (found.product, found.refusal) == ("triton whole tiles", None)


def test_without_a_kernel_for_products_over_all_rows_there_is_no_fused_path() -> None:
    checks = [check(kind, "triton") for kind in FUSED_KINDS]
    found = decide(certificate(*checks, check("products", "grouped")), never)
    assert (found.product, found.refusal) == (None, "frozen products by triton: not checked on this machine")


def test_cublas_takes_what_it_was_checked_for_and_the_kernel_the_rest() -> None:
    by_cublas = check("products", "cublas", milliseconds=0.1)
    checks = [
        replace(by_cublas, case=f"{direction} to {n}", rows=rows)
        for direction, n, rows in (("forward 32", 64, 8192), ("backward 64", 32, 4096), ("forward 32", 8, 64))
    ]
    found = decide(good(*checks), lambda _: None)
    assert (found.product, found.kernel) == ("cublas", "triton")
    # A size that the model does not have is none of its products.
    assert found.library_rows == {(32, 64, True): 8192, (64, 32, False): 4096}


def test_cublas_alone_is_not_enough_for_the_fused_path() -> None:
    checks = [check(kind, "triton") for kind in FUSED_KINDS]
    failed = [check("products", way, "3 of 8 elements differ") for way in ("triton", "triton whole tiles")]
    found = decide(certificate(*checks, *failed, check("products", "cublas")), lambda _: None)
    assert (found.product, found.kernel) == ("cublas", None)
    assert found.refusal is not None
    assert found.refusal.startswith("frozen products by triton: not invariant on this machine")


def test_an_output_layer_that_no_kernel_multiplies_does_not_refuse_the_fused_path() -> None:
    """As Granite's, whose vocabulary of 49155 is no multiple of 8."""
    sizes = replace(TINY, vocabulary=67, linears=TINY.linears[:1])
    way = Way(kind="products", name="triton", cases=partial(products.cases, product=products.by_block))
    checks = list(check_way(way, CPU, BF16, sizes, 1, lambda: None))
    left = [check for check in checks if check.not_computed is not None]
    assert [check.case for check in left] == ["forward 32 to 67", "backward 67 to 32"]
    assert all(check.rows == 130 for check in checks if check.not_computed is None)
    grouped = [
        replace(check, way="grouped", not_computed=None, comparisons=3, milliseconds=1e3) for check in checks
    ]
    made = certificate(*(check(kind, "triton") for kind in FUSED_KINDS), *checks, *grouped, device=hopper())
    assert decide(made, never).refusal is None
    assert made.failures() == []
    assert made.way_of("products") == "triton"
    (said,) = made.not_computed()
    assert said.startswith(
        "frozen products by triton: forward 32 to 67, backward 67 to 32: not computed this way: rows of 32"
    )
    assert said in list(table(made))
    only_left = certificate(*left, *(check(kind, "triton") for kind in FUSED_KINDS))
    assert (only_left.way_of("products"), decide(only_left, never).product) == (None, None)


def test_a_kind_without_any_invariant_way_is_noted() -> None:
    found = decide(good(check("output", "one chunk", "1 of 8 elements differ")), never)
    (note,) = found.notes
    assert note.startswith("no way to compute log-softmax and cross entropy of the output layer is invariant")
    assert note.endswith("a trial's numbers may depend on its neighbours")


def test_liger_that_fails_is_not_used_on_the_general_path() -> None:
    assert decide(good(), never).liger_refusal is None
    assert decide(good(check("norms", "liger")), never).liger_refusal is None
    said = decide(good(check("norms", "liger"), check("rotary", "liger", "2 of 8 elements differ")), never)
    assert said.liger_refusal is not None
    assert said.liger_refusal.startswith("rotary embeddings by liger: not invariant on this machine")


# --- the start of a worker ------------------------------------------------------------------------


def test_a_cpu_and_older_cards_make_no_certificate() -> None:
    def obtain(*_: Any, **__: Any) -> Certificate:
        raise AssertionError("nothing is to be checked")

    assert decide_here(TINY, torch.float32, obtain=obtain) == Decision()
    older = replace(hopper(), capability=(8, 6))
    assert decide_here(TINY, BF16, facts=older, obtain=obtain) == Decision()
    assert decide_here(TINY, torch.float32, facts=hopper(), obtain=obtain) == Decision()


def test_capability_9_takes_the_certificate_of_the_cache_or_a_new_one() -> None:
    asked = []

    def obtain(device: torch.device, sizes: Any, dtype: torch.dtype, alive: Any) -> Certificate:
        asked.append((device, sizes, dtype))
        alive()
        return good()

    beats: list[int] = []
    found = decide_here(TINY, BF16, facts=hopper(), obtain=obtain, alive=lambda: beats.append(1))
    assert found.product == "triton"
    assert found.refusal is None
    assert asked == [(CPU, TINY, BF16)]
    assert beats


def test_a_certificate_that_cannot_be_made_means_the_general_path() -> None:
    def obtain(*_: Any, **__: Any) -> Certificate:
        raise OSError("no process can be started")

    found = decide_here(TINY, BF16, facts=hopper(), obtain=obtain)
    assert found.refusal == "no certificate could be made: OSError: no process can be started"
    assert found.notes == (f"the fused path is not taken: {found.refusal}",)


def test_an_error_of_the_device_is_raised() -> None:
    def obtain(*_: Any, **__: Any) -> Certificate:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    with pytest.raises(RuntimeError, match="illegal memory access"):
        decide_here(TINY, BF16, facts=hopper(), obtain=obtain)


def test_cublas_is_set_up_and_checked_in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "of the user")
    monkeypatch.setenv("CUBLASLT_WORKSPACE_SIZE", "of the user")
    way = next(way for way in decisions.WAYS if way.name == "cublas :0:0")
    seen = {}

    def cases(setting: Any) -> Any:
        seen.update({name: decisions.os.environ.get(name) for name in decisions.VARIABLES})
        return products.cases(setting, products.by_block)

    monkeypatch.setattr(decisions, "WAYS", (replace(way, cases=cases),))
    assert set_up_cublas("cublas :0:0", CPU, torch.float32, good(), lambda: None) is None
    assert seen == {"CUBLAS_WORKSPACE_CONFIG": ":0:0", "CUBLASLT_WORKSPACE_SIZE": "0"}

    def leaks(x: torch.Tensor, *rest: Any) -> torch.Tensor:
        return products.by_block(x, *rest) + 0.0 * x.sum()

    monkeypatch.setattr(
        decisions, "WAYS", (replace(way, cases=lambda setting: products.cases(setting, leaks)),)
    )
    said = set_up_cublas("cublas :0:0", CPU, torch.float32, good(), lambda: None)
    assert said is not None
    assert "beside NaN neighbours" in said


# --- the path -------------------------------------------------------------------------------------


def test_a_refusal_is_the_reason_of_the_general_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    device = torch.device("cuda", 0)
    refused = Machine.of(device, BF16, Decision(refusal="norms differ"))
    assert (refused.has_fused_kernels, refused.reason) == (False, "norms differ")
    allowed = Machine.of(device, BF16, decide(good(), never))
    assert allowed.has_fused_kernels
    assert allowed.reason == (
        "compute capability 9.0, bfloat16, its kernels are invariant on this machine "
        "(checked 2026-11-28T19:00:00+00:00)"
    )
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (12, 0))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    small = Machine.of(device, BF16, decide(good(), never))
    assert not small.has_fused_kernels
    assert small.reason == (
        "compute capability 12.0 has 99 KiB of shared memory a block, the fused kernels need 209"
    )
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    assert Machine.of(device, BF16).has_fused_kernels, "by default, as for benchmarks and tests"


def test_paths_of_equal_rounding_have_equal_names() -> None:
    assert ComputePath(False, "a CPU").name == "general"
    assert ComputePath(False, "a CPU", product="triton").name == "general, frozen products by triton"
    assert ComputePath(True, "").name == ComputePath(True, "", product="triton").name
    assert ComputePath(True, "", product="cublas :0:0").name == "fused, frozen products by cublas :0:0"
