"""The tape behaves as a CUDA graph where a difference would hide an error."""

from __future__ import annotations

import torch
from torch import Tensor

from tests.lora_runner.graphs.tape import TapePool


def test_a_replay_reads_and_writes_the_tensors_of_its_capture() -> None:
    given, sums = torch.tensor([1.0, 2.0]), torch.zeros(2)

    def add() -> None:
        sums.add_((given * 3).view(2))

    graph = TapePool(lambda: [sums]).new_graph()
    graph.capture(add)
    assert sums.tolist() == [0.0, 0.0]  # a capture computes nothing
    given.copy_(torch.tensor([5.0, 7.0]))
    graph.replay()
    graph.replay()
    assert sums.tolist() == [30.0, 42.0]


def test_what_a_capture_has_made_is_lost_when_another_graph_runs() -> None:
    """A table that is made once, but inside a capture, lies in memory that the other graphs use too."""
    pool, out = TapePool(), torch.zeros(3)
    tables: list[Tensor] = []

    def first() -> None:
        tables.append(torch.ones(3) * 2)

    def later() -> None:
        out.copy_(tables[0])

    graphs = [pool.new_graph() for _ in range(3)]
    for graph, function in zip(graphs, (first, later, later), strict=True):
        graph.capture(function)
    graphs[0].replay()
    graphs[1].replay()  # its own second half, such as the backward pass, may still read it
    assert out.tolist() == [2.0, 2.0, 2.0]
    graphs[2].replay()
    assert out.isnan().all()
